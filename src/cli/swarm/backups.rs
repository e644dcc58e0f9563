//! `swarm backup ls`: the backups that a manager has written by itself.

use anyhow::bail;
use clap::Args;
use serde::Deserialize;

use crate::cli::client::Route;
use crate::cli::shell::Shell;
use crate::cli::text::rows::{Listing, Row};
use crate::cli::text::units;

/// `swarm backup ls`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm backup ls       on a manager whose settings have [backup]; every file's checksum is compared

The exit status is 1 where the last attempt failed.")]
pub(crate) struct Ls {
    /// 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.Name}} {{.State}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only display names
    #[arg(short, long)]
    quiet: bool,
}

const LISTING: Listing = Listing {
    template: "{{.Name}}\t{{.Created}}\t{{.Size}}\t{{.Services}}\t{{.State}}",
    headings: &[
        ("Name", "NAME"),
        ("Created", "CREATED"),
        ("Size", "SIZE"),
        ("Services", "SERVICES"),
        ("Nodes", "NODES"),
        ("Index", "ENTRY"),
        ("State", "STATE"),
    ],
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    directory: String,
    last: Option<String>,
    next: Option<String>,
    failed: Option<String>,
    error: String,
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    name: String,
    size: i64,
    #[serde(default)]
    created: String,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    nodes: u64,
    #[serde(default)]
    services: u64,
    error: String,
}

impl Ls {
    pub(super) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let reply: Reply = shell.client.get(&Route::new(["x", "v1", "backups"])).await?;
        if self.quiet {
            for file in reply.files {
                shell.out.line(file.name)?;
            }
            return Ok(());
        }
        let rows = reply.files.iter().map(row).collect();
        LISTING.print(&mut shell.out, self.format.as_deref(), rows)?;
        if self.format.is_none() {
            let (last, next) = (reply.last.as_deref(), reply.next.as_deref());
            shell.out.line(format_args!(
                "\nIn {}. Last: {}. Next: {}.",
                reply.directory,
                last.unwrap_or("none yet"),
                next.unwrap_or("now")
            ))?;
        }
        match reply.failed {
            Some(at) => bail!("the last attempt, {at}, failed: {}", reply.error),
            None => Ok(()),
        }
    }
}

fn row(file: &File) -> Row {
    // A file has its name only once it was verified; what is told here is whether it still is what
    // it was.
    let state = if file.error.is_empty() { "verified" } else { file.error.as_str() };
    Row::default()
        .with("Name", file.name.as_str())
        .with("Created", file.created.as_str())
        .with("Size", units::bytes_size(file.size))
        .with("Services", file.services)
        .with("Nodes", file.nodes)
        .with("Index", file.index)
        .with("State", state)
}
