//! Waiting until a service runs as wished, with Docker's progress on the screen.
//!
//! On a terminal the lines are drawn over; elsewhere a line is printed only when it says something
//! new. Ctrl-C stops waiting, not the service.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::progress::{self, Picture};
use crate::cli::client::Route;
use crate::cli::filters::Filters;
use crate::cli::os::{self, Moment};
use crate::cli::reply;
use crate::cli::shell::{Out, Screen, Shell};
use crate::cli::text::units;
use crate::domain::policy::UpdatePolicy;

/// Between two looks, as Docker's client.
const PAUSE: Duration = Duration::from_millis(200);
/// How much longer than usual tasks are watched while the daemon calls an update unfinished.
const UPDATE_GRACE: Duration = Duration::from_secs(30);

/// How a change is sent and followed.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag")]
pub(crate) struct FollowFlags {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true,
          action = clap::ArgAction::Set)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Send registry authentication details (from Docker's config.json) with the request
    #[arg(long)]
    with_registry_auth: bool,
    /// Accepted for scripts written for Docker: digests of images are never resolved here
    #[arg(long)]
    no_resolve_image: bool,
}

impl FollowFlags {
    /// The header with credentials, if the user wants it sent.
    ///
    /// # Errors
    /// When the credentials cannot be read.
    pub(super) fn registry_auth(&self, image: &str) -> anyhow::Result<Option<String>> {
        if self.with_registry_auth { super::auth::header(image) } else { Ok(None) }
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The spec that was sent: a rollback is a failure.
    Spec,
    /// The previous spec: a rollback is the aim.
    Previous,
}

/// Waits until the service has converged, unless the user does not want to.
///
/// # Errors
/// When the update was paused or rolled back, or the daemon cannot be asked.
pub(super) async fn after(
    shell: &mut Shell,
    id: &str,
    flags: &FollowFlags,
    wish: Wish,
) -> anyhow::Result<()> {
    if flags.detach {
        return Ok(());
    }
    let mut display = Display::new(if flags.quiet { None } else { Some(shell.out.screen()) });
    let mut follower = Follower { wish, rolled_back: None, converged: None };
    // One for the whole time: a signal between two of them would reach nobody.
    let mut interrupted = std::pin::pin!(os::interrupted());
    let mut pause = Duration::ZERO;
    loop {
        let next = async {
            os::sleep(pause).await;
            look(shell, id).await
        };
        let step = tokio::select! {
            biased;
            () = &mut interrupted => {
                display.finish(&mut shell.out)?;
                shell.out.note("Operation continuing in background.")?;
                let hint = format!("Use `swarm service ps {id}` to check progress.");
                return Ok(shell.out.note(hint)?);
            }
            step = next => step?,
        };
        let done = follower.step(&step)?;
        display.draw(&mut shell.out, &follower.lines(&step))?;
        if let Some(outcome) = done {
            display.finish(&mut shell.out)?;
            return outcome.into_result(&step.service);
        }
        pause = PAUSE;
    }
}

/// What is known at one moment.
struct Look {
    service: reply::Service,
    picture: Picture,
}

impl Look {
    /// For how long all tasks must run until the service counts as converged. While the daemon is
    /// still busy with an update its word is waited for, but not for ever.
    fn watched(&self) -> Duration {
        let policy = self.service.spec.update_config.as_ref();
        let given = policy.and_then(|policy| policy.monitor).filter(|monitor| monitor.0 > 0);
        let monitor = given.unwrap_or(UpdatePolicy::DEFAULT_MONITOR).duration();
        if self.unfinished() { monitor + UPDATE_GRACE } else { monitor }
    }

    /// Whether the daemon is still busy with an update.
    fn unfinished(&self) -> bool {
        let status = self.service.update_status.as_ref();
        status.is_some_and(|it| matches!(it.state.as_str(), "updating" | "rollback_started"))
    }
}

async fn look(shell: &Shell, id: &str) -> anyhow::Result<Look> {
    let service: reply::Service =
        shell.client.get(&Route::new(["services", id]).query("insertDefaults", "false")).await?;
    let filters = Filters::default().with("service", id).with("_up-to-date", "true");
    let tasks: Vec<reply::Task> =
        shell.client.get(&Route::new(["tasks"]).filters(&filters)).await?;
    let nodes: Vec<reply::Node> = shell.client.get(&Route::new(["nodes"])).await?;
    let picture = progress::picture(&service, &tasks, &nodes);
    Ok(Look { service, picture })
}

/// How it ended.
enum Outcome {
    Converged,
    /// With the daemon's words.
    RolledBack(String),
}

impl Outcome {
    fn into_result(self, service: &reply::Service) -> anyhow::Result<()> {
        match self {
            Self::Converged => Ok(()),
            Self::RolledBack(message) => bail!(
                "the update was rolled back: {message}; see `swarm service ps {}`",
                service.spec.name
            ),
        }
    }
}

/// What must be remembered between two looks.
struct Follower {
    wish: Wish,
    /// The daemon's words on a rollback that is under way or done.
    rolled_back: Option<String>,
    /// Since when all tasks run.
    converged: Option<Moment>,
}

impl Follower {
    fn step(&mut self, look: &Look) -> anyhow::Result<Option<Outcome>> {
        let name = &look.service.spec.name;
        let status = look.service.update_status.as_ref();
        let (state, message) =
            status.map_or(("", ""), |status| (status.state.as_str(), status.message.as_str()));
        let failed = look.picture.slots.iter().find(|slot| !slot.error.is_empty());
        let reason = failed.map(|slot| format!(": {}", slot.error)).unwrap_or_default();
        match state {
            "updating" => self.rolled_back = None,
            "paused" => bail!(
                "service update paused: {message}{reason}; see `swarm service ps {name}`, then correct it by \
                 `swarm service update` or return by `swarm service rollback {name}`"
            ),
            "rollback_started" => self.rolled_back = Some(message.to_owned()),
            "rollback_paused" => {
                bail!("service rollback paused: {message}{reason}; see `swarm service ps {name}`")
            }
            "rollback_completed" => {
                // An old rollback does not concern this change.
                if let Some(words) = &mut self.rolled_back {
                    message.clone_into(words);
                }
            }
            _ => {}
        }
        if !look.picture.converged() {
            self.converged = None;
            return Ok(None);
        }
        let since = *self.converged.get_or_insert_with(Moment::now);
        if since.elapsed() < look.watched() {
            return Ok(None);
        }
        Ok(Some(match (&self.rolled_back, self.wish) {
            (Some(message), Wish::Spec) => Outcome::RolledBack(message.clone()),
            (Some(_), Wish::Previous) | (None, _) => Outcome::Converged,
        }))
    }

    /// The lines of the screen, each under a key.
    fn lines(&self, look: &Look) -> Vec<(String, Line)> {
        let Picture { running, wanted, slots } = &look.picture;
        let rollback = if self.rolled_back.is_some() { "rolling back update: " } else { "" };
        let mut lines = Vec::new();
        if let Some(message) = self.rolled_back.as_ref().filter(|words| !words.is_empty()) {
            lines.push(("rollback".to_owned(), Line::Text(format!("rollback: {message}"))));
        }
        let overall = format!("overall progress: {rollback}{running} out of {wanted} tasks");
        lines.push(("overall".to_owned(), Line::Text(overall)));
        for slot in slots {
            lines.push((slot.label.clone(), Line::Slot(slot.clone())));
        }
        if let Some(since) = self.converged {
            let left = look.watched().saturating_sub(since.elapsed());
            let text = if look.unfinished() {
                "verify: Waiting for the managers to finish the update...".to_owned()
            } else if left.is_zero() {
                format!("verify: Service {} converged", look.service.spec.name)
            } else {
                let seconds = left.as_millis().div_ceil(1_000);
                format!("verify: Waiting {seconds} seconds to verify that tasks are stable...")
            };
            lines.push(("verify".to_owned(), Line::Text(text)));
        }
        lines
    }
}

enum Line {
    Text(String),
    Slot(progress::SlotPicture),
}

/// The lines on the screen.
struct Display {
    screen: Option<Screen>,
    /// Lines that the cursor is below of.
    drawn: usize,
    /// What was printed last under each key.
    printed: BTreeMap<String, String>,
}

impl Display {
    const fn new(screen: Option<Screen>) -> Self {
        Self { screen, drawn: 0, printed: BTreeMap::new() }
    }

    fn draw(&mut self, out: &mut Out, lines: &[(String, Line)]) -> std::io::Result<()> {
        match self.screen {
            None => Ok(()),
            Some(Screen::Terminal(columns)) => self.redraw(out, lines, columns),
            Some(Screen::Plain) => self.append(out, lines),
        }
    }

    fn redraw(
        &mut self,
        out: &mut Out,
        lines: &[(String, Line)],
        columns: usize,
    ) -> std::io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for (_, line) in lines {
            let line = match line {
                // A line that wraps would break the count of lines to go up.
                Line::Text(text) => units::ellipsis(text, columns.saturating_sub(1)),
                Line::Slot(slot) => progress::bar(slot, columns),
            };
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        // Lines of before that there are no more.
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        out.text(text)
    }

    fn append(&mut self, out: &mut Out, lines: &[(String, Line)]) -> std::io::Result<()> {
        for (key, line) in lines {
            let text = match line {
                Line::Text(text) => text.clone(),
                // Bars are for terminals; an error is worth a line.
                Line::Slot(slot) if slot.error.is_empty() => continue,
                Line::Slot(slot) => format!("{}: {}", slot.label, slot.error),
            };
            if self.printed.get(key) != Some(&text) {
                out.line(&text)?;
                self.printed.insert(key.clone(), text);
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Out) -> std::io::Result<()> {
        self.drawn = 0;
        out.text("")
    }
}

#[cfg(test)]
mod tests;
