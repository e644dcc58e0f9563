//! The language of the scenarios: one command per line, output after `>`.

use std::fmt::Write as _;
use std::time::Duration;

use swarm::control::Effect;
use swarm::domain::container::{PullOptions, RegistryAuth};
use swarm::domain::node::{Availability, Description, Membership, NodeSpec, Reachability, Role};
use swarm::domain::placement::{Placement, Preference, SpreadOver};
use swarm::domain::policy::{
    FailureAction, RestartCondition, RestartPolicy, UpdateOrder, UpdatePolicy,
};
use swarm::domain::resources::{Reservations, ResourceRequirements};
use swarm::domain::service::{EndpointSpec, Mode, PortConfig, PublishMode};
use swarm::domain::task::Slot;
use swarm::domain::{Format, Nanos, NodeId, RaftId, ServiceSpec, Task, TaskId, TaskState};
use swarm::state::ObjectKey;

use super::world::{Behaviour, World};

/// Runs a scenario and gives its text with the output as it is now.
pub(crate) fn run(text: &str) -> String {
    let mut world = World::new(5, 16, Format::NEWEST);
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with('>')) {
        writeln!(out, "{line}").unwrap();
        let command = line.split('#').next().unwrap();
        let words: Vec<&str> = command.split_whitespace().collect();
        if !words.is_empty() {
            for output in step(&mut world, &words) {
                writeln!(out, "> {output}").unwrap();
            }
        }
    }
    out
}

fn step(world: &mut World, words: &[&str]) -> Vec<String> {
    match *words {
        ["cluster", ref options @ ..] => *world = cluster(options),
        ["node", "add", ref rest @ ..] => add_nodes(world, rest),
        ["node", "set", name, ref options @ ..] => {
            world
                .edit_node(name, |node| options.iter().for_each(|it| set_node(&mut node.spec, it)));
        }
        ["node", "rm", name] => world.remove_node(name),
        ["node", "silent", name] => world.silence(name, None),
        ["node", "closed", name] => world.silence(name, Some(world.now)),
        ["node", "back", name] => world.hear(name),
        ["node", "release", name, format] => world.release(name, Format(format.parse().unwrap())),
        ["manager", "join", name] => return joined(world, name),
        ["raft", "silent", name] => {
            let id = world.raft_id(name);
            world.raft.silent.insert(id);
        }
        ["raft", "behind", name, entries] => {
            let id = world.raft_id(name);
            world.raft.learners.insert(id, entries.parse().unwrap());
        }
        ["elect"] => world.elect(),
        ["root", ref rest @ ..] => return super::roots::step(world, rest),
        ["service", "create", name, ref options @ ..] => {
            let mut spec = ServiceSpec { name: name.to_owned(), ..ServiceSpec::default() };
            options.iter().for_each(|it| set_service(&mut spec, it));
            world.create_service(spec);
        }
        ["service", "update", name, ref options @ ..] => {
            let mut spec = world.spec(name);
            options.iter().for_each(|it| set_service(&mut spec, it));
            world.update_service(spec, None);
        }
        ["service", "rollback", name] => world.roll_back(name),
        ["service", "rm", name] => world.remove_service(name),
        ["image", image, "fails", "after", time] => {
            world.behaviours.insert(image.to_owned(), Behaviour::Fails(duration(time)));
        }
        ["image", image, "stuck"] => {
            world.behaviours.insert(image.to_owned(), Behaviour::Stuck);
        }
        ["image", image, "missing"] => {
            world.behaviours.insert(image.to_owned(), Behaviour::Missing);
        }
        ["image", image, "works"] => {
            world.behaviours.remove(image);
        }
        ["task", "fails", name] => end(world, name, TaskState::Failed),
        ["task", "completes", name] => end(world, name, TaskState::Complete),
        ["task", "rejected", name] => end(world, name, TaskState::Rejected),
        ["settle"] => world.settle(),
        ["plan"] => {
            world.pass();
        }
        ["advance", time] => world.advance(duration(time)),
        ["show", "nodes"] => return nodes(world),
        ["show", "service", name] => return service(world, name),
        ["show", "tasks", name] => return tasks(world, name, |_| true),
        ["show", "live", name] => return tasks(world, name, Task::is_live),
        ["show", "spread", name] => return spread(world, name),
        ["show", "addresses"] => return addresses(world),
        ["show", "managers"] => return managers(world),
        ["show", "format"] => return format(world),
        ["show", "versions", name] => return versions(world, name),
        ref other => panic!("what is {other:?}?"),
    }
    Vec::new()
}

fn cluster(options: &[&str]) -> World {
    let (mut history, mut prefix, mut format) = (5, 16, Format::NEWEST);
    for option in options {
        match option.split_once('=').unwrap() {
            ("history", value) => history = value.parse().unwrap(),
            ("prefix", value) => prefix = value.parse().unwrap(),
            ("format", value) => format = Format(value.parse().unwrap()),
            other => panic!("what is {other:?}?"),
        }
    }
    World::new(history, prefix, format)
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).unwrap());
    let number: u64 = number.parse().unwrap();
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        "h" => Duration::from_secs(number * 3600),
        other => panic!("what is {other}?"),
    }
}

fn nanos(text: &str) -> Nanos {
    Nanos(u64::try_from(duration(text).as_nanos()).unwrap())
}

fn nano_cpus(text: &str) -> i64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part: i64 = format!("{part:0<9}").parse().unwrap();
    whole.parse::<i64>().unwrap() * 1_000_000_000 + part
}

fn bytes(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: i64 = number.parse().unwrap();
    number
        << match unit {
            "M" => 20,
            "G" => 30,
            other => panic!("what is {other}?"),
        }
}

fn add_nodes(world: &mut World, words: &[&str]) {
    let names = words.iter().filter(|word| !word.contains('='));
    for name in names {
        let mut spec = NodeSpec::default();
        let mut description =
            Description { hostname: (*name).to_owned(), ..Description::default() };
        description.platform.os = "linux".to_owned();
        description.platform.architecture = "x86_64".to_owned();
        description.resources.nano_cpus = nano_cpus("2");
        description.resources.memory_bytes = bytes("4G");
        for option in words.iter().filter(|word| word.contains('=')) {
            match option.split_once('=').unwrap() {
                ("cpu", value) => description.resources.nano_cpus = nano_cpus(value),
                ("mem", value) => description.resources.memory_bytes = bytes(value),
                ("arch", value) => value.clone_into(&mut description.platform.architecture),
                _ => set_node(&mut spec, option),
            }
        }
        world.add_node(description, spec);
    }
}

fn set_node(spec: &mut NodeSpec, option: &str) {
    match option.split_once('=').unwrap() {
        ("availability", "active") => spec.availability = Availability::Active,
        ("availability", "pause") => spec.availability = Availability::Pause,
        ("availability", "drain") => spec.availability = Availability::Drain,
        ("role", "manager") => spec.role = Role::Manager,
        ("role", "worker") => spec.role = Role::Worker,
        (key, value) => {
            let label = key.strip_prefix("label.").unwrap_or_else(|| panic!("what is {key}?"));
            spec.labels.insert(label.to_owned(), value.to_owned());
        }
    }
}

fn set_service(spec: &mut ServiceSpec, option: &str) {
    let (key, value) = option.split_once('=').unwrap();
    let template = &mut spec.task_template;
    match key {
        "image" => value.clone_into(&mut template.container_spec.image),
        "auth" => {
            let registry_auth = RegistryAuth::new(value.to_owned());
            template.container_spec.pull_options = Some(PullOptions { registry_auth });
        }
        "replicas" => spec.mode = Mode::Replicated { replicas: Some(value.parse().unwrap()) },
        "mode" => spec.mode = Mode::Global {},
        "force" => template.force_update = value.parse().unwrap(),
        "label" => {
            spec.labels.insert("label".to_owned(), value.to_owned());
        }
        "network" => {
            template.networks = vec![swarm::domain::network::NetworkAttachmentSpec {
                target: value.to_owned(),
                ..Default::default()
            }];
        }
        "cpu" | "mem" => {
            let resources = template.resources.get_or_insert_with(ResourceRequirements::default);
            let reserved = resources.reservations.get_or_insert_with(Reservations::default);
            match key {
                "cpu" => reserved.nano_cpus = nano_cpus(value),
                _ => reserved.memory_bytes = bytes(value),
            }
        }
        "port" => {
            let port = value.parse().unwrap();
            let port = PortConfig {
                target_port: port,
                published_port: port,
                publish_mode: PublishMode::Host,
                ..PortConfig::default()
            };
            spec.endpoint_spec.get_or_insert_with(EndpointSpec::default).ports.push(port);
        }
        "constraint" | "spread" | "max_per_node" | "arch" => {
            set_placement(template.placement.get_or_insert_with(Placement::default), key, value);
        }
        _ => set_policy(spec, key, value),
    }
}

fn set_placement(placement: &mut Placement, key: &str, value: &str) {
    match key {
        "constraint" if value == "none" => placement.constraints.clear(),
        "constraint" => placement.constraints.push(value.to_owned()),
        "spread" => placement
            .preferences
            .push(Preference { spread: Some(SpreadOver { spread_descriptor: value.to_owned() }) }),
        "arch" => placement.platforms.push(swarm::domain::node::Platform {
            architecture: value.to_owned(),
            os: "linux".to_owned(),
        }),
        _ => placement.max_replicas = value.parse().unwrap(),
    }
}

fn set_policy(spec: &mut ServiceSpec, key: &str, value: &str) {
    let (group, key) = key.split_once('.').unwrap_or_else(|| panic!("what is {key}?"));
    let update = || UpdatePolicy { parallelism: 1, ..UpdatePolicy::default() };
    match group {
        "restart" => {
            let template = &mut spec.task_template;
            let policy = template.restart_policy.get_or_insert_with(RestartPolicy::default);
            match key {
                "condition" => {
                    policy.condition = Some(match value {
                        "none" => RestartCondition::None,
                        "on-failure" => RestartCondition::OnFailure,
                        _ => RestartCondition::Any,
                    });
                }
                "delay" => policy.delay = Some(nanos(value)),
                "max_attempts" => policy.max_attempts = Some(value.parse().unwrap()),
                "window" => policy.window = Some(nanos(value)),
                other => panic!("what is {other}?"),
            }
        }
        "update" => set_update(spec.update_config.get_or_insert_with(update), key, value),
        "rollback" => set_update(spec.rollback_config.get_or_insert_with(update), key, value),
        other => panic!("what is {other}?"),
    }
}

fn set_update(policy: &mut UpdatePolicy, key: &str, value: &str) {
    match key {
        "parallelism" => policy.parallelism = value.parse().unwrap(),
        "delay" => policy.delay = Some(nanos(value)),
        "monitor" => policy.monitor = Some(nanos(value)),
        "max_failure_ratio" => policy.max_failure_ratio = value.parse().unwrap(),
        "on_failure" => {
            policy.failure_action = Some(match value {
                "continue" => FailureAction::Continue,
                "rollback" => FailureAction::Rollback,
                _ => FailureAction::Pause,
            });
        }
        "order" => {
            policy.order = Some(match value {
                "start-first" => UpdateOrder::StartFirst,
                _ => UpdateOrder::StopFirst,
            });
        }
        other => panic!("what is {other}?"),
    }
}

/// `web.2` or `web.n1`: the live task of a slot.
fn find(world: &World, name: &str) -> TaskId {
    let (service, slot) = name.split_once('.').unwrap();
    let service = world.state.service_named(service).unwrap();
    let mut live = world.state.tasks_of(service.id).filter(|task| task.is_live());
    let task = live.find(|task| slot_name(world, task) == slot);
    task.unwrap_or_else(|| panic!("no live task {name}")).id
}

fn end(world: &mut World, name: &str, state: TaskState) {
    let task = find(world, name);
    world.end_task(task, state);
}

fn joined(world: &mut World, name: &str) -> Vec<String> {
    match world.join(name) {
        Ok(()) => Vec::new(),
        Err(rejection) => vec![format!("error: {rejection}")],
    }
}

fn slot_name(world: &World, task: &Task) -> String {
    match task.slot {
        Slot::Number(number) => number.to_string(),
        Slot::Node(node) => world.name_of(node),
    }
}

fn nodes(world: &World) -> Vec<String> {
    let line = |node: &swarm::domain::Node| {
        let status = &node.status;
        let state = match status.reachability {
            Reachability::Unreachable => format!("{} ({})", "down", status.message),
            other => other.as_str().to_owned(),
        };
        let live = world.state.tasks_on(node.id).filter(|task| task.is_live()).count();
        let availability = node.spec.availability.as_str();
        format!("{} {availability} {state}, {live} tasks", world.name_of(node.id))
    };
    world.state.nodes.values().map(|node| line(node)).collect()
}

fn service(world: &World, name: &str) -> Vec<String> {
    let Some(service) = world.state.service_named(name) else {
        return vec!["no such service".to_owned()];
    };
    let spec = world.state.current_spec(service).unwrap();
    let tasks = world.state.tasks_of(service.id);
    let running = tasks.filter(|it| it.is_live() && it.status.state == TaskState::Running).count();
    let wanted = spec.replicas().map_or_else(|| "global".to_owned(), |count| count.to_string());
    let image = &spec.task_template.container_spec.image;
    let mut line = format!("{name} {running}/{wanted} {image}");
    if let Some(update) = &service.update {
        let message = mask(world, &update.message);
        write!(line, ", {}: {message}", update.state.as_str()).unwrap();
    }
    vec![line]
}

/// Task ids in messages become names, so that goldens do not hang on ids.
fn mask(world: &World, text: &str) -> String {
    let word = |word: &str| {
        let task = word.parse::<TaskId>().ok();
        task.map_or_else(
            || word.to_owned(),
            |id| {
                world.state.task(id).map_or_else(|| "(gone)".to_owned(), |it| full_name(world, it))
            },
        )
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn full_name(world: &World, task: &Task) -> String {
    let service = world.state.service(task.service).unwrap();
    format!("{}.{}", service.name, slot_name(world, task))
}

fn tasks(world: &World, name: &str, shown: impl Fn(&Task) -> bool) -> Vec<String> {
    let Some(service) = world.state.service_named(name) else {
        return vec!["no such service".to_owned()];
    };
    let mut tasks: Vec<&Task> =
        world.state.tasks_of(service.id).map(|task| &**task).filter(|task| shown(task)).collect();
    tasks.sort_by_key(|task| (task.slot, task.meta.created_at, task.is_live(), task.id));
    tasks.into_iter().map(|task| task_line(world, task)).collect()
}

fn task_line(world: &World, task: &Task) -> String {
    let spec = &world.state.spec(task.service, task.spec).unwrap().spec;
    let image = &spec.task_template.container_spec.image;
    let node = task.node.map_or_else(|| "-".to_owned(), |id| world.name_of(id));
    let mut line = format!(
        "{} {image} on {node}: {} (wanted {})",
        full_name(world, task),
        task.status.state,
        task.desired
    );
    if !task.status.error.is_empty() {
        write!(line, " \"{}\"", task.status.error).unwrap();
    }
    line
}

fn spread(world: &World, name: &str) -> Vec<String> {
    let service = world.state.service_named(name).unwrap();
    let count = |node| {
        let live = world.state.tasks_on(node).filter(|it| it.is_live() && it.service == service.id);
        live.count()
    };
    let counts: Vec<String> = world
        .state
        .nodes
        .values()
        .map(|node| format!("{} {}", world.name_of(node.id), count(node.id)))
        .collect();
    vec![counts.join(", ")]
}

fn addresses(world: &World) -> Vec<String> {
    let parts = world.state.network_nodes.values();
    let gateways = parts.map(|it| format!("{} gateway {}", world.name_of(it.node), it.gateway));
    let mut tasks: Vec<&Task> = world.state.tasks.values().map(|it| &**it).collect();
    tasks.sort_by_key(|it| (it.service, it.slot, it.meta.created_at));
    let tasks = tasks.into_iter().map(|it| {
        let list: Vec<_> = it.addresses.iter().map(|it| it.addr.to_string()).collect();
        format!("{} {} [{}]", full_name(world, it), it.status.state, list.join(" "))
    });
    gateways.chain(tasks).collect()
}

fn managers(world: &mut World) -> Vec<String> {
    let name = |raft_id: RaftId| {
        let owner = |node: &&std::sync::Arc<swarm::domain::Node>| {
            node.manager.is_some_and(|it| it.raft_id == raft_id)
        };
        let node = world.state.nodes.values().find(owner);
        node.map_or_else(|| format!("raft {raft_id}"), |it| world.name_of(it.id))
    };
    let mut lines = Vec::new();
    for node in world.state.nodes.values() {
        let Some(manager) = node.manager else { continue };
        let part = match manager.membership {
            Membership::None => "joined",
            Membership::Learner => "learner",
            Membership::Voter => "voter",
            Membership::Removed => "removed",
        };
        let leads = if world.raft.me == Some(manager.raft_id) { ", leads" } else { "" };
        let silent = if manager.silent { ", silent" } else { "" };
        lines.push(format!("{} {part}{leads}{silent}", world.name_of(node.id)));
    }
    let effects: Vec<String> = world
        .effects
        .iter()
        .map(|effect| match *effect {
            Effect::AddLearner { raft_id, .. } => format!("add {}", name(raft_id)),
            Effect::Promote { raft_id } => format!("promote {}", name(raft_id)),
            Effect::Remove { raft_id } => format!("remove {}", name(raft_id)),
            Effect::TransferLeader { to } => format!("transfer to {}", name(to)),
        })
        .collect();
    if !effects.is_empty() {
        lines.push(format!("effects: {}", effects.join(", ")));
    }
    lines.append(&mut notes(world));
    world.effects.clear();
    lines
}

fn format(world: &mut World) -> Vec<String> {
    let mut lines = vec![format!("format {}", world.state.format())];
    lines.append(&mut notes(world));
    lines
}

/// What passes have said since the last time; names of nodes for their ids.
fn notes(world: &mut World) -> Vec<String> {
    let named = |text: &str| {
        let name = |word: &str| match word.parse::<NodeId>() {
            Ok(id) if world.state.node(id).is_some() => world.name_of(id),
            Ok(_) | Err(_) => word.to_owned(),
        };
        text.split(' ').map(name).collect::<Vec<_>>().join(" ")
    };
    let said = world.notes.iter().map(|(key, text)| match key {
        ObjectKey::Node(id) => format!("{}: {text}", world.name_of(*id)),
        ObjectKey::Cluster => named(text),
        other => format!("{other:?}: {text}"),
    });
    let lines = said.collect();
    world.notes.clear();
    lines
}

fn versions(world: &World, name: &str) -> Vec<String> {
    let service = world.state.service_named(name).unwrap();
    let rows = world.state.specs.range((service.id, 0)..=(service.id, u64::MAX));
    let numbers: Vec<String> = rows.map(|((_, number), _)| number.to_string()).collect();
    let previous = service.previous.map_or_else(|| "none".to_owned(), |it| it.to_string());
    vec![format!("{}; current {}, previous {previous}", numbers.join(" "), service.current)]
}
