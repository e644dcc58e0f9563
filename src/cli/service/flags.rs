//! Flags that `service create` and `service update` share, and what each writes into a spec: only
//! what was given, over Docker's defaults where a whole policy appears for the first time.

use anyhow::bail;
use clap::Args;

use crate::cli::values::{env, number};
use crate::domain::container::{ContainerSpec, Healthcheck};
use crate::domain::policy::{
    FailureAction, RestartCondition, RestartPolicy, UpdateOrder, UpdatePolicy,
};
use crate::domain::service::{EndpointMode, LogDriver, Mode, TaskTemplate};
use crate::domain::{Nanos, ServiceSpec};

/// Flags of both commands.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SharedFlags {
    #[command(flatten)]
    pub(crate) scale: ScaleFlags,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    restart: RestartFlags,
    #[command(flatten)]
    update: UpdateFlags,
    #[command(flatten)]
    rollback: RollbackFlags,
    #[command(flatten)]
    health: HealthFlags,
    #[command(flatten)]
    container: ContainerFlags,
}

/// How many tasks, and how they are reached.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ScaleFlags {
    /// Number of tasks
    #[arg(long, value_name = "COUNT")]
    pub(crate) replicas: Option<u64>,
    /// Maximum number of tasks per node (default 0 = unlimited)
    #[arg(long, value_name = "COUNT")]
    replicas_max_per_node: Option<u64>,
    /// Endpoint mode: vip or dnsrr
    #[arg(long, value_name = "MODE", value_parser = word::<EndpointMode>)]
    endpoint_mode: Option<EndpointMode>,
}

/// What a task may use.
#[derive(Args, Clone, Debug, Default)]
struct ResourceFlags {
    /// Limit CPUs, such as 0.5
    #[arg(long, value_name = "CPUS", value_parser = number::cpus)]
    limit_cpu: Option<i64>,
    /// Limit memory, such as 64M
    #[arg(long, value_name = "BYTES", value_parser = number::bytes)]
    limit_memory: Option<i64>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long, value_name = "COUNT")]
    limit_pids: Option<i64>,
    /// Reserve CPUs
    #[arg(long, value_name = "CPUS", value_parser = number::cpus)]
    reserve_cpu: Option<i64>,
    /// Reserve memory
    #[arg(long, value_name = "BYTES", value_parser = number::bytes)]
    reserve_memory: Option<i64>,
}

/// When a task is replaced.
#[derive(Args, Clone, Debug, Default)]
struct RestartFlags {
    /// Restart when condition is met: none, on-failure or any (default any)
    #[arg(long, value_name = "CONDITION", value_parser = word::<RestartCondition>)]
    restart_condition: Option<RestartCondition>,
    /// Delay between restart attempts (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    restart_delay: Option<Nanos>,
    /// Maximum number of restarts before giving up
    #[arg(long, value_name = "COUNT")]
    restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    restart_window: Option<Nanos>,
}

/// How a new spec replaces tasks.
#[derive(Args, Clone, Debug, Default)]
struct UpdateFlags {
    /// Maximum number of tasks updated simultaneously (0 to update all at once) (default 1)
    #[arg(long, value_name = "COUNT")]
    update_parallelism: Option<u64>,
    /// Delay between updates (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    update_delay: Option<Nanos>,
    /// Duration after each task update to monitor for failure (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    update_monitor: Option<Nanos>,
    /// Action on update failure: pause, continue or rollback (default pause)
    #[arg(long, value_name = "ACTION", value_parser = word::<FailureAction>)]
    update_failure_action: Option<FailureAction>,
    /// Failure rate to tolerate during an update (default 0)
    #[arg(long, value_name = "SHARE", value_parser = number::ratio)]
    update_max_failure_ratio: Option<f64>,
    /// Update order: start-first or stop-first (default stop-first)
    #[arg(long, value_name = "ORDER", value_parser = word::<UpdateOrder>)]
    update_order: Option<UpdateOrder>,
}

/// How the previous spec comes back.
#[derive(Args, Clone, Debug, Default)]
struct RollbackFlags {
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once) (default 1)
    #[arg(long, value_name = "COUNT")]
    rollback_parallelism: Option<u64>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h) (default 0s)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    rollback_delay: Option<Nanos>,
    /// Duration after each task rollback to monitor for failure (default 5s)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    rollback_monitor: Option<Nanos>,
    /// Action on rollback failure: pause or continue (default pause)
    #[arg(long, value_name = "ACTION", value_parser = rollback_action)]
    rollback_failure_action: Option<FailureAction>,
    /// Failure rate to tolerate during a rollback (default 0)
    #[arg(long, value_name = "SHARE", value_parser = number::ratio)]
    rollback_max_failure_ratio: Option<f64>,
    /// Rollback order: start-first or stop-first (default stop-first)
    #[arg(long, value_name = "ORDER", value_parser = word::<UpdateOrder>)]
    rollback_order: Option<UpdateOrder>,
}

/// How health is found out.
#[derive(Args, Clone, Debug, Default)]
struct HealthFlags {
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    health_interval: Option<Nanos>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    health_timeout: Option<Nanos>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "COUNT")]
    health_retries: Option<i64>,
    /// Start period for the container to initialize before counting retries towards unstable
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    health_start_period: Option<Nanos>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    health_start_interval: Option<Nanos>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
}

/// What the container is like.
#[derive(Args, Clone, Debug, Default)]
struct ContainerFlags {
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "COMMAND", value_parser = command_line)]
    entrypoint: Option<CommandLine>,
    /// Container hostname
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h) (default 10s)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    stop_grace_period: Option<Nanos>,
    /// Use an init inside each service container to forward signals and reap processes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    init: Option<bool>,
    /// Mount the container's root filesystem as read only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    read_only: Option<bool>,
    /// Allocate a pseudo-TTY
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    tty: Option<bool>,
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// Logging driver for service
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Logging driver options
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
}

/// A command line that was split into words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine(pub(crate) Vec<String>);

/// Splits a command line.
///
/// # Errors
/// When a quote is not closed.
pub(crate) fn command_line(text: &str) -> Result<CommandLine, String> {
    crate::cli::values::words::split(text).map(CommandLine)
}

/// One of the words that a spec type knows.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text.to_lowercase())).map_err(|error| {
        let text = error.to_string();
        text.split_once(", ").map_or_else(|| text.clone(), |(_, expected)| expected.to_owned())
    })
}

fn rollback_action(text: &str) -> Result<FailureAction, String> {
    match word(text)? {
        FailureAction::Rollback => Err("expected `pause` or `continue`".to_owned()),
        action => Ok(action),
    }
}

fn put<T: Clone>(place: &mut T, given: Option<&T>) {
    if let Some(given) = given {
        place.clone_from(given);
    }
}

fn put_some<T: Clone>(place: &mut Option<T>, given: Option<&T>) {
    if given.is_some() {
        *place = given.cloned();
    }
}

impl SharedFlags {
    /// Writes what was given into a spec.
    ///
    /// # Errors
    /// When flags contradict each other or the spec.
    pub(crate) fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        self.scale.apply(spec)?;
        self.resources.apply(&mut spec.task_template);
        self.restart.apply(&mut spec.task_template);
        self.update.apply(&mut spec.update_config);
        self.rollback.apply(&mut spec.rollback_config);
        self.health.apply(&mut spec.task_template.container_spec)?;
        self.container.apply(&mut spec.task_template);
        Ok(())
    }
}

impl ScaleFlags {
    fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        if let Some(count) = self.replicas {
            match &mut spec.mode {
                Mode::Replicated { replicas } => *replicas = Some(count),
                Mode::Global {} => bail!("replicas can only be used with replicated mode"),
            }
        }
        if let Some(most) = self.replicas_max_per_node {
            if spec.replicas().is_none() {
                bail!("replicas-max-per-node can only be used with replicated mode");
            }
            spec.task_template.placement.get_or_insert_default().max_replicas = most;
        }
        if let Some(mode) = self.endpoint_mode {
            spec.endpoint_spec.get_or_insert_default().mode = Some(mode);
        }
        Ok(())
    }
}

impl ResourceFlags {
    fn apply(&self, task: &mut TaskTemplate) {
        let limited = self.limit_cpu.or(self.limit_memory).or(self.limit_pids).is_some();
        let reserved = self.reserve_cpu.or(self.reserve_memory).is_some();
        if !limited && !reserved {
            return;
        }
        let resources = task.resources.get_or_insert_default();
        if limited {
            let limits = resources.limits.get_or_insert_default();
            put(&mut limits.nano_cpus, self.limit_cpu.as_ref());
            put(&mut limits.memory_bytes, self.limit_memory.as_ref());
            put(&mut limits.pids, self.limit_pids.as_ref());
        }
        if reserved {
            let reservations = resources.reservations.get_or_insert_default();
            put(&mut reservations.nano_cpus, self.reserve_cpu.as_ref());
            put(&mut reservations.memory_bytes, self.reserve_memory.as_ref());
        }
    }
}

impl RestartFlags {
    fn apply(&self, task: &mut TaskTemplate) {
        let given = self.restart_condition.is_some()
            || self.restart_delay.is_some()
            || self.restart_max_attempts.is_some()
            || self.restart_window.is_some();
        if !given {
            return;
        }
        let policy = task.restart_policy.get_or_insert_with(|| RestartPolicy {
            condition: Some(RestartCondition::Any),
            delay: Some(RestartPolicy::DEFAULT_DELAY),
            max_attempts: Some(0),
            ..RestartPolicy::default()
        });
        put_some(&mut policy.condition, self.restart_condition.as_ref());
        put_some(&mut policy.delay, self.restart_delay.as_ref());
        put_some(&mut policy.max_attempts, self.restart_max_attempts.as_ref());
        put_some(&mut policy.window, self.restart_window.as_ref());
    }
}

/// Docker's policy where the user gave only a part of one.
fn default_policy() -> UpdatePolicy {
    UpdatePolicy {
        parallelism: 1,
        failure_action: Some(FailureAction::Pause),
        monitor: Some(UpdatePolicy::DEFAULT_MONITOR),
        order: Some(UpdateOrder::StopFirst),
        ..UpdatePolicy::default()
    }
}

impl UpdateFlags {
    fn apply(&self, policy: &mut Option<UpdatePolicy>) {
        let given = self.update_parallelism.is_some()
            || self.update_delay.is_some()
            || self.update_monitor.is_some()
            || self.update_failure_action.is_some()
            || self.update_max_failure_ratio.is_some()
            || self.update_order.is_some();
        if !given {
            return;
        }
        let policy = policy.get_or_insert_with(default_policy);
        put(&mut policy.parallelism, self.update_parallelism.as_ref());
        put_some(&mut policy.delay, self.update_delay.as_ref());
        put_some(&mut policy.monitor, self.update_monitor.as_ref());
        put_some(&mut policy.failure_action, self.update_failure_action.as_ref());
        put(&mut policy.max_failure_ratio, self.update_max_failure_ratio.as_ref());
        put_some(&mut policy.order, self.update_order.as_ref());
    }
}

impl RollbackFlags {
    fn apply(&self, policy: &mut Option<UpdatePolicy>) {
        UpdateFlags {
            update_parallelism: self.rollback_parallelism,
            update_delay: self.rollback_delay,
            update_monitor: self.rollback_monitor,
            update_failure_action: self.rollback_failure_action,
            update_max_failure_ratio: self.rollback_max_failure_ratio,
            update_order: self.rollback_order,
        }
        .apply(policy);
    }
}

impl HealthFlags {
    fn apply(&self, container: &mut ContainerSpec) -> anyhow::Result<()> {
        let given = self.health_cmd.is_some()
            || self.health_retries.is_some()
            || [
                self.health_interval,
                self.health_timeout,
                self.health_start_period,
                self.health_start_interval,
            ]
            .iter()
            .any(Option::is_some);
        if self.no_healthcheck {
            if given {
                bail!("--no-healthcheck conflicts with --health-* options");
            }
            container.healthcheck =
                Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
            return Ok(());
        }
        if !given {
            return Ok(());
        }
        let check = container.healthcheck.get_or_insert_default();
        if check.test.first().is_some_and(|word| word == "NONE") {
            check.test.clear();
        }
        if let Some(command) = &self.health_cmd {
            check.test = if command.is_empty() {
                Vec::new()
            } else {
                vec!["CMD-SHELL".to_owned(), command.clone()]
            };
        }
        put_some(&mut check.interval, self.health_interval.as_ref());
        put_some(&mut check.timeout, self.health_timeout.as_ref());
        put_some(&mut check.start_period, self.health_start_period.as_ref());
        put_some(&mut check.start_interval, self.health_start_interval.as_ref());
        put_some(&mut check.retries, self.health_retries.as_ref());
        Ok(())
    }
}

impl ContainerFlags {
    fn apply(&self, task: &mut TaskTemplate) {
        let container = &mut task.container_spec;
        if let Some(entrypoint) = &self.entrypoint {
            container.command.clone_from(&entrypoint.0);
        }
        put(&mut container.hostname, self.hostname.as_ref());
        put(&mut container.user, self.user.as_ref());
        put(&mut container.dir, self.workdir.as_ref());
        put(&mut container.stop_signal, self.stop_signal.as_ref());
        put_some(&mut container.stop_grace_period, self.stop_grace_period.as_ref());
        put_some(&mut container.init, self.init.as_ref());
        put(&mut container.read_only, self.read_only.as_ref());
        put(&mut container.tty, self.tty.as_ref());
        self.apply_capabilities(container);
        if let Some(name) = self.log_driver.as_ref().filter(|name| !name.is_empty()) {
            let options = env::pairs(&self.log_opt);
            task.log_driver = Some(LogDriver { name: name.clone(), options });
        }
    }

    /// Adding what was dropped, or dropping what was added, returns to the default first, as in
    /// Docker; adding wins over dropping.
    fn apply_capabilities(&self, container: &mut ContainerSpec) {
        if self.cap_add.is_empty() && self.cap_drop.is_empty() {
            return;
        }
        let add = env::capabilities(&self.cap_add);
        let drop = env::capabilities(&self.cap_drop);
        let mut added = env::capabilities(&container.capability_add);
        let mut dropped = env::capabilities(&container.capability_drop);
        for name in drop.difference(&add) {
            if name == "RESET" {
                dropped.clear();
            } else if !added.remove(name) {
                dropped.insert(name.clone());
            }
        }
        for name in &add {
            if name == "RESET" {
                added.clear();
            } else if !dropped.remove(name) {
                added.insert(name.clone());
            }
        }
        for set in [&mut added, &mut dropped] {
            if set.contains("ALL") {
                set.retain(|name| name == "ALL");
            }
        }
        container.capability_add = added.into_iter().collect();
        container.capability_drop = dropped.into_iter().collect();
    }
}
