//! Which manager an agent has its session with.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::world::{Manager, World};
use crate::domain::NodeId;
use crate::wire::node::manager_message::Kind as ToAgent;
use crate::wire::node::{ManagerAddr, Managers};

pub(super) const OWN: &str = "10.9.9.1:2377";
pub(super) const OTHER: &str = "10.9.9.2:2377";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) async fn say_managers(manager: &Manager, all: &[&str]) {
    let managers = all.iter().zip(1_u8..).map(|(text, number)| ManagerAddr {
        node: NodeId::from_bytes([number; 16]).to_bytes().to_vec().into(),
        addr: (*text).to_owned(),
    });
    manager.say(ToAgent::Managers(Managers { managers: managers.collect() })).await;
}

#[tokio::test]
async fn a_session_with_the_own_process_moves_to_another_one_once_there_is_one() {
    let world = World::new();
    let mut life = world.start().await;
    let own = life.manager().await;
    assert_eq!(own.peer.addr, addr(OWN));
    say_managers(&own, &[OWN]).await;
    say_managers(&own, &[OWN, OTHER]).await;
    let other = life.manager().await;
    assert_eq!(other.peer.addr, addr(OTHER));
    own.left(&world.env).await;
    // The other one dies: back home, and away again when it answers.
    drop(other);
    let own = life.manager().await;
    assert_eq!(own.peer.addr, addr(OWN), "what was lost is tried last");
    let other = life.manager().await;
    assert_eq!(other.peer.addr, addr(OTHER));
    own.left(&world.env).await;
    life.kill().await;
}

#[tokio::test]
async fn a_session_is_not_left_for_a_manager_that_does_not_answer() {
    let world = World::new();
    *world.refused.who.lock().unwrap() = Some(addr(OTHER));
    let mut life = world.start().await;
    let own = life.manager().await;
    say_managers(&own, &[OWN, OTHER]).await;
    world.until("it is asked", || world.refused.asked.load(Ordering::Relaxed) > 2).await;
    assert!(!own.peer.from.is_closed(), "an agent left the only manager that there is");
    *world.refused.who.lock().unwrap() = None;
    let other = life.manager().await;
    assert_eq!(other.peer.addr, addr(OTHER));
    own.left(&world.env).await;
    life.kill().await;
}

#[tokio::test]
async fn managers_that_keep_silent_do_not_keep_others_waiting() {
    let silent = ["10.9.9.3:2377", "10.9.9.4:2377", "10.9.9.5:2377"];
    let world = World::new();
    *world.refused.silent.lock().unwrap() = silent.map(addr).to_vec();
    let mut life = world.start().await;
    let own = life.manager().await;
    say_managers(&own, &[silent[0], OWN, silent[1], OTHER, silent[2]]).await;
    world.until("they are known", || life.agent.managers().borrow().len() == 5).await;
    drop(own);
    let other = life.manager().await;
    assert_eq!(other.peer.addr, addr(OTHER));
    drop(other);
    let own = life.manager().await;
    assert_eq!(own.peer.addr, addr(OWN), "the one that was lost comes last");
    life.kill().await;
}

#[tokio::test]
async fn a_manager_that_does_not_welcome_gets_no_session_while_another_one_does() {
    let world = World::new();
    let mut life = world.start().await;
    let own = life.manager().await;
    say_managers(&own, &[OWN, OTHER]).await;
    // It lags behind, say: the session with the own one goes on.
    let slow = life.greeted().await;
    assert_eq!(slow.peer.addr, addr(OTHER));
    assert!(!own.peer.from.is_closed());
    drop(own);
    // The slow one is asked anew, and the own one beside it.
    let (slow, own) = (life.greeted().await, life.greeted().await);
    assert_eq!((slow.peer.addr, own.peer.addr), (addr(OTHER), addr(OWN)));
    own.welcome().await;
    slow.left(&world.env).await;
    assert!(!own.peer.from.is_closed());
    life.kill().await;
}
