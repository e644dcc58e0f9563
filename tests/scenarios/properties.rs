//! Random stories: whatever happens, in whatever order, the invariants hold after every change of
//! every plan, planning is a fixpoint, and the dirty set hides nothing (`World::pass` checks these).

use std::time::Duration;

use proptest::prelude::*;
use swarm::domain::node::{Availability, Description, NodeSpec};
use swarm::domain::placement::Placement;
use swarm::domain::policy::{FailureAction, RestartPolicy, UpdateOrder, UpdatePolicy};
use swarm::domain::resources::{Reservations, ResourceRequirements};
use swarm::domain::service::{EndpointSpec, Mode, PortConfig, PublishMode};
use swarm::domain::{Nanos, ServiceSpec, TaskState};

use super::world::{Behaviour, World};

#[derive(Clone, Debug)]
enum Step {
    AddNode,
    RemoveNode(usize),
    Availability(usize, u8),
    Zone(usize, bool),
    Silence(usize, bool),
    Hear(usize),
    Create(Wish),
    Update(usize, Wish),
    RollBack(usize),
    Remove(usize),
    EndTask(usize, u8),
    Image(u8, u8),
    Advance(u32),
    Agents,
    Pass,
    Elect,
}

#[derive(Clone, Debug)]
struct Wish {
    image: u8,
    replicas: Option<u8>,
    parallelism: u8,
    flags: [bool; 6],
    action: u8,
    attempts: u8,
}

fn wish() -> impl Strategy<Value = Wish> {
    (0..3u8, prop::option::weighted(0.8, 0..6u8), 0..3u8, any::<[bool; 6]>(), 0..3u8, 0..3u8)
        .prop_map(|(image, replicas, parallelism, flags, action, attempts)| Wish {
            image,
            replicas,
            parallelism,
            flags,
            action,
            attempts,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..8usize;
    prop_oneof![
        2 => Just(Step::AddNode),
        1 => which.clone().prop_map(Step::RemoveNode),
        2 => (which.clone(), 0..3u8).prop_map(|(a, b)| Step::Availability(a, b)),
        1 => (which.clone(), any::<bool>()).prop_map(|(a, b)| Step::Zone(a, b)),
        2 => (which.clone(), any::<bool>()).prop_map(|(a, b)| Step::Silence(a, b)),
        2 => which.clone().prop_map(Step::Hear),
        2 => wish().prop_map(Step::Create),
        4 => (which.clone(), wish()).prop_map(|(a, b)| Step::Update(a, b)),
        1 => which.clone().prop_map(Step::RollBack),
        1 => which.clone().prop_map(Step::Remove),
        4 => (0..40usize, 0..3u8).prop_map(|(a, b)| Step::EndTask(a, b)),
        1 => (0..3u8, 0..4u8).prop_map(|(a, b)| Step::Image(a, b)),
        6 => (1..20_000u32).prop_map(Step::Advance),
        6 => Just(Step::Agents),
        6 => Just(Step::Pass),
        1 => Just(Step::Elect),
    ]
}

/// The spec of a wish, for a service of the same mode as before.
fn spec(name: &str, wish: &Wish, mode: Option<Mode>) -> ServiceSpec {
    let [start_first, constrained, port, heavy, bounded, slow] = wish.flags;
    let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
    let template = &mut spec.task_template;
    template.container_spec.image = format!("image{}", wish.image);
    let mut placement = Placement::default();
    if constrained {
        placement.constraints.push("node.labels.zone==a".to_owned());
    }
    placement.max_replicas = if bounded { 2 } else { 0 };
    template.placement = Some(placement);
    template.restart_policy = Some(RestartPolicy {
        delay: Some(Nanos::from_secs(2)),
        max_attempts: Some(wish.attempts.into()),
        ..RestartPolicy::default()
    });
    if heavy {
        let reservations = Reservations { nano_cpus: 700_000_000, ..Reservations::default() };
        template.resources = Some(ResourceRequirements {
            reservations: Some(reservations),
            ..ResourceRequirements::default()
        });
    }
    if port {
        let port = PortConfig {
            published_port: 80,
            target_port: 80,
            publish_mode: PublishMode::Host,
            ..PortConfig::default()
        };
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    }
    spec.update_config = Some(UpdatePolicy {
        parallelism: wish.parallelism.into(),
        delay: slow.then_some(Nanos::from_secs(3)),
        failure_action: Some(match wish.action {
            0 => FailureAction::Pause,
            1 => FailureAction::Continue,
            _ => FailureAction::Rollback,
        }),
        order: start_first.then_some(UpdateOrder::StartFirst),
        ..UpdatePolicy::default()
    });
    spec.mode = match (mode, wish.replicas) {
        (Some(Mode::Global {}), _) | (None, None) => Mode::Global {},
        (_, replicas) => Mode::Replicated { replicas: Some(replicas.unwrap_or(2).into()) },
    };
    spec
}

fn pick<T>(mut all: Vec<T>, which: usize) -> Option<T> {
    if all.is_empty() {
        return None;
    }
    let index = which % all.len();
    Some(all.swap_remove(index))
}

fn node(world: &World, which: usize) -> Option<String> {
    pick(world.state.nodes.values().map(|node| world.name_of(node.id)).collect(), which)
}

fn service(world: &World, which: usize) -> Option<String> {
    let wanted = world.state.services.values().filter(|it| !it.removing);
    pick(wanted.map(|it| it.name.clone()).collect(), which)
}

fn change_nodes(world: &mut World, step: &Step, count: usize) -> Option<()> {
    match *step {
        Step::AddNode if world.state.nodes.len() < 6 => {
            let hostname = format!("n{count}");
            let mut description = Description { hostname, ..Description::default() };
            description.resources.nano_cpus = 2_000_000_000;
            let mut spec = NodeSpec::default();
            spec.labels.insert("zone".to_owned(), "a".to_owned());
            world.add_node(description, spec);
        }
        Step::RemoveNode(which) => world.remove_node(&node(world, which)?),
        Step::Availability(which, value) => {
            let name = node(world, which)?;
            world.edit_node(&name, |node| {
                node.spec.availability = match value {
                    0 => Availability::Pause,
                    1 => Availability::Drain,
                    _ => Availability::Active,
                };
            });
        }
        Step::Zone(which, in_a) => {
            let name = node(world, which)?;
            let zone = if in_a { "a" } else { "b" };
            world.edit_node(&name, |node| {
                node.spec.labels.insert("zone".to_owned(), zone.to_owned());
            });
        }
        Step::Silence(which, closed) => {
            let closed_at = closed.then_some(world.now);
            world.silence(&node(world, which)?, closed_at);
        }
        Step::Hear(which) => world.hear(&node(world, which)?),
        _ => {}
    }
    Some(())
}

fn change_services(world: &mut World, step: &Step, count: usize) -> Option<()> {
    match step {
        Step::Create(wish) if world.state.services.len() < 4 => {
            world.create_service(spec(&format!("s{count}"), wish, None));
        }
        Step::Update(which, wish) => {
            let name = service(world, *which)?;
            let mode = world.spec(&name).mode;
            world.update_service(spec(&name, wish, Some(mode)), None);
        }
        Step::RollBack(which) => {
            let name = service(world, *which)?;
            world.state.service_named(&name)?.previous?;
            world.roll_back(&name);
        }
        Step::Remove(which) => world.remove_service(&service(world, *which)?),
        Step::EndTask(which, how) => {
            let placed = world.state.tasks.values().filter(|task| task.may_run());
            let id = pick(placed.map(|task| task.id).collect(), *which)?;
            let how = [TaskState::Failed, TaskState::Complete, TaskState::Rejected][*how as usize];
            world.end_task(id, how);
        }
        Step::Image(image, how) => {
            let name = format!("image{image}");
            match how {
                0 => world.behaviours.insert(name, Behaviour::Stuck),
                1 => world.behaviours.insert(name, Behaviour::Fails(Duration::from_secs(3))),
                _ => world.behaviours.remove(&name),
            };
        }
        _ => {}
    }
    Some(())
}

fn perform(world: &mut World, step: &Step, count: usize) {
    let _nothing_to_pick_from = change_nodes(world, step, count);
    let _nothing_to_pick_from = change_services(world, step, count);
    match step {
        Step::Advance(millis) => world.advance(Duration::from_millis((*millis).into())),
        Step::Agents => {
            world.agents();
        }
        Step::Pass => {
            world.pass();
        }
        Step::Elect => world.elect(),
        _ => {}
    }
}

/// Once all is well, what is wanted is what runs.
fn heals(world: &mut World) {
    world.behaviours.clear();
    let names: Vec<String> =
        world.state.nodes.values().map(|node| world.name_of(node.id)).collect();
    for name in names {
        world.hear(&name);
        world.edit_node(&name, |node| {
            node.spec.availability = Availability::Active;
            node.spec.labels.insert("zone".to_owned(), "a".to_owned());
        });
    }
    let services: Vec<String> = (0..4).filter_map(|which| service(world, which)).collect();
    let plain = Wish {
        image: 9,
        replicas: Some(2),
        parallelism: 0,
        flags: [false; 6],
        action: 1,
        attempts: 0,
    };
    for name in services {
        let mode = world.spec(&name).mode;
        world.update_service(spec(&name, &plain, Some(mode)), None);
    }
    world.advance(Duration::from_secs(200));
    for service in world.state.services.values() {
        assert!(!service.removing, "a removed service is still there");
        let tasks = world.state.tasks_of(service.id);
        let running = tasks.filter(|it| it.is_live() && it.status.state == TaskState::Running);
        let spec = world.state.current_spec(service).unwrap();
        let nodes = world.state.nodes.len();
        let wanted = spec.replicas().map_or(nodes, |it| usize::try_from(it).unwrap());
        let wanted = if nodes == 0 { 0 } else { wanted };
        assert_eq!(running.count(), wanted, "{service:?}");
    }
}

/// 96 stories, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { 96 };
    ProptestConfig { cases, ..given }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_invariants_hold(
        steps in prop::collection::vec(step(), 1..60),
        history in 0..4i64,
    ) {
        let mut world = World::new(history, 24, swarm::domain::Format::NEWEST);
        for (count, step) in steps.iter().enumerate() {
            perform(&mut world, step, count);
        }
        heals(&mut world);
    }
}
