//! The roots that an agent is to trust: it is told which, and what it confirms is written down.
//!
//! An agent says the digest of what lies on its disk. Only a digest that is the wanted one counts,
//! whoever asked for it, so a word that comes late confirms nothing (docs/adr/0020).

use bytes::Bytes;

use crate::domain::NodeId;
use crate::identity::{IdentityError, authority};
use crate::state::State;
use crate::wire::node::Trust;

/// What one session knows of its agent's roots.
#[derive(Debug, Default)]
pub(super) struct TrustTalk {
    /// The generation and its digest, as this manager knows it.
    wanted: Option<(u64, Bytes)>,
    /// What the agent said last; empty while it has not, or is of a release that does not.
    said: Bytes,
    told: u64,
    confirmed: u64,
}

/// What there is to do.
#[derive(Debug, PartialEq)]
pub(super) enum TrustStep {
    /// Nothing.
    Nothing,
    /// Tell the agent.
    Tell(Trust),
    /// Write down that it has confirmed this generation.
    Record(u64),
}

impl TrustTalk {
    /// The agent says what it trusts.
    pub(super) fn hear(&mut self, said: Bytes) {
        if !said.is_empty() {
            self.said = said;
        }
    }

    /// What follows from the state and from what was said. Each step is given once.
    ///
    /// # Errors
    /// When the roots of the state cannot be read.
    pub(super) fn step(&mut self, state: &State, node: NodeId) -> Result<TrustStep, IdentityError> {
        let (Some(cluster), Some(row)) = (&state.cluster, state.node(node)) else {
            return Ok(TrustStep::Nothing);
        };
        let generation = cluster.trust.generation;
        let wanted = match &self.wanted {
            Some((known, digest)) if *known == generation => digest.clone(),
            _ => {
                let digest = authority::trust_digest(&cluster.roots_pem())?;
                let digest = Bytes::copy_from_slice(&digest);
                self.wanted = Some((generation, digest.clone()));
                digest
            }
        };
        if self.said == wanted {
            let news = row.trust < generation && self.confirmed < generation;
            self.confirmed = self.confirmed.max(generation);
            return Ok(if news { TrustStep::Record(generation) } else { TrustStep::Nothing });
        }
        if self.told >= generation {
            return Ok(TrustStep::Nothing);
        }
        self.told = generation;
        Ok(TrustStep::Tell(Trust { digest: wanted }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cluster::{Cluster, Trust as Roots};
    use crate::domain::{ClusterId, Timestamp};
    use crate::state::fixtures::{node_id, small};
    use std::sync::Arc;

    fn rotate(state: &mut State) {
        let cluster = state.cluster.as_ref().unwrap();
        let rotation = Some(authority::succeed(cluster, Timestamp(1 << 60)).unwrap());
        let generation = cluster.trust.generation + 1;
        let trust = Roots { generation, rotation };
        state.cluster = Some(Arc::new(Cluster { trust, ..(**cluster).clone() }));
    }

    fn digest(state: &State) -> Bytes {
        let roots = state.cluster.as_ref().unwrap().roots_pem();
        Bytes::copy_from_slice(&authority::trust_digest(&roots).unwrap())
    }

    fn begin() -> State {
        let mut state = small();
        let cluster = (**state.cluster.as_ref().unwrap()).clone();
        let authority = authority::create(ClusterId::from_bytes([1; 16]), Timestamp(1 << 60));
        state.cluster = Some(Arc::new(Cluster { authority: authority.unwrap(), ..cluster }));
        state
    }

    #[test]
    fn only_what_is_wanted_now_is_written_down() {
        let (mut state, node) = (begin(), node_id(1));
        let mut talk = TrustTalk::default();
        let first = digest(&state);
        talk.hear(first.clone());
        assert_eq!(talk.step(&state, node).unwrap(), TrustStep::Nothing, "never rotated");
        rotate(&mut state);
        let second = digest(&state);
        let tell = TrustStep::Tell(Trust { digest: second.clone() });
        assert_eq!(talk.step(&state, node).unwrap(), tell);
        assert_eq!(talk.step(&state, node).unwrap(), TrustStep::Nothing, "told once");
        rotate(&mut state);
        talk.hear(second);
        let third = digest(&state);
        let tell = TrustStep::Tell(Trust { digest: third.clone() });
        assert_eq!(talk.step(&state, node).unwrap(), tell, "the second is not wanted any more");
        talk.hear(third);
        assert_eq!(talk.step(&state, node).unwrap(), TrustStep::Record(2));
        assert_eq!(talk.step(&state, node).unwrap(), TrustStep::Nothing, "written down once");
    }

    #[test]
    fn an_agent_that_says_nothing_is_told_and_not_counted() {
        let mut state = begin();
        rotate(&mut state);
        let mut talk = TrustTalk::default();
        talk.hear(Bytes::new());
        assert!(matches!(talk.step(&state, node_id(1)).unwrap(), TrustStep::Tell(_)));
        assert_eq!(talk.step(&state, node_id(1)).unwrap(), TrustStep::Nothing);
    }
}
