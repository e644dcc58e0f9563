//! Where a manager's agent has its session.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::world::{Manager, World};
use crate::domain::NodeId;
use crate::wire::node::manager_message::Kind as ToAgent;
use crate::wire::node::{ManagerAddr, Managers};

const OWN: &str = "10.9.9.1:2377";
const OTHER: &str = "10.9.9.2:2377";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

async fn say_managers(manager: &Manager, all: &[&str]) {
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
