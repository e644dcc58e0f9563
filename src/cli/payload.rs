//! `swarm secret …` and `swarm config …`: the same commands for two kinds of payload.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::base64;
use super::client::Route;
use super::filters::Filters;
use super::os;
use super::reply;
use super::shell::Shell;
use super::text::rows::{self, ListArgs, Listing, Row};
use super::text::units;
use super::values::env::pairs;
use crate::domain::secret::{CONFIG_BYTES_MAX, SECRET_BYTES_MAX};

/// Which kind of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not readable once it is made.
    Secret,
    /// Readable.
    Config,
}

impl Kind {
    const fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    const fn most(self) -> usize {
        match self {
            Self::Secret => SECRET_BYTES_MAX,
            Self::Config => CONFIG_BYTES_MAX,
        }
    }

    const fn listing(self) -> Listing {
        match self {
            Self::Secret => SECRETS,
            Self::Config => CONFIGS,
        }
    }
}

/// `swarm secret` and `swarm config`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PayloadCommand {
    /// Create one from a file, or from standard input as content
    #[command(after_help = "Examples:
  swarm secret create db_password ./password.txt
  openssl rand -hex 16 | swarm secret create db_password -
  swarm config create -l env=prod nginx.conf ./nginx.conf")]
    Create(CreateArgs),
    /// Display detailed information on one or more
    #[command(after_help = "Examples:
  swarm secret inspect db_password
  swarm config inspect --pretty nginx.conf")]
    Inspect(InspectArgs),
    /// List them
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  swarm secret ls
  swarm config ls --filter label=env=prod --format '{{.Name}}'"
    )]
    Ls(ListArgs),
    /// Remove one or more that no service uses
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  swarm secret rm db_password"
    )]
    Rm {
        /// Names or ids
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

/// What `create` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    /// The file with its content; - for standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Labels (key=value)
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Template driver (golang): placeholders in the content are filled in for each task
    #[arg(long, value_name = "DRIVER")]
    template_driver: Option<String>,
}

/// What `inspect` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// 'json', or a Go template such as '{{.Spec.Name}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
}

const SECRETS: Listing = Listing {
    template: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
        ("Labels", "LABELS"),
    ],
};

const CONFIGS: Listing = Listing {
    template: "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
        ("Labels", "LABELS"),
    ],
};

impl PayloadCommand {
    /// Runs the command.
    pub(crate) async fn run(self, kind: Kind, shell: &mut Shell) -> anyhow::Result<()> {
        match self {
            Self::Create(args) => create(kind, shell, &args).await,
            Self::Inspect(args) => inspect(kind, shell, &args).await,
            Self::Ls(args) => list(kind, shell, &args).await,
            Self::Rm { names } => remove(kind, shell, &names).await,
        }
    }
}

async fn create(kind: Kind, shell: &mut Shell, args: &CreateArgs) -> anyhow::Result<()> {
    let bytes = os::read_input(&args.file, kind.most())
        .with_context(|| format!("error reading content from {:?}", args.file))?;
    if bytes.is_empty() || bytes.len() > kind.most() {
        let word = kind.word();
        bail!("{word} data must be larger than 0 and at most {} bytes", kind.most());
    }
    let mut body = json!({
        "Name": args.name,
        "Labels": pairs(&args.labels),
        "Data": base64::encode(&bytes),
    });
    if let Some(driver) = &args.template_driver {
        body["Templating"] = json!({ "Name": driver });
    }
    let route = Route::new([kind.plural(), "create"]);
    let created: reply::Created = shell.client.post_for(&route, &body, None).await?;
    Ok(shell.out.line(created.id)?)
}

async fn list(kind: Kind, shell: &mut Shell, args: &ListArgs) -> anyhow::Result<()> {
    let filters = Filters::parse(&args.filters)?;
    let mut found: Vec<reply::Payload> =
        shell.client.get(&Route::new([kind.plural()]).filters(&filters)).await?;
    found.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    if args.quiet {
        for payload in found {
            shell.out.line(payload.id)?;
        }
        return Ok(());
    }
    let now = os::now();
    let rows = found.iter().map(|payload| {
        let row = Row::default()
            .with("ID", payload.id.as_str())
            .with("Name", payload.spec.name.as_str())
            .with("CreatedAt", units::ago(&payload.created_at, now))
            .with("UpdatedAt", units::ago(&payload.updated_at, now))
            .with_labels(&payload.spec.labels);
        match kind {
            Kind::Secret => row.with("Driver", ""),
            Kind::Config => row,
        }
    });
    kind.listing().print(&mut shell.out, args.format.as_deref(), rows.collect())
}

async fn inspect(kind: Kind, shell: &mut Shell, args: &InspectArgs) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for name in &args.names {
        let raw = shell.client.get_raw(&Route::new([kind.plural(), name])).await?;
        objects.push(String::from_utf8_lossy(&raw).trim().to_owned());
    }
    if !args.pretty {
        return rows::print_objects(&mut shell.out, args.format.as_deref(), &objects);
    }
    for object in objects {
        let payload: reply::Payload = serde_json::from_str(&object)?;
        shell.out.text(pretty(kind, &payload))?;
    }
    Ok(())
}

fn pretty(kind: Kind, payload: &reply::Payload) -> String {
    let mut text = format!("ID:\t\t\t{}\nName:\t\t\t{}\n", payload.id, payload.spec.name);
    if !payload.spec.labels.is_empty() {
        text.push_str("Labels:\n");
        for (key, value) in &payload.spec.labels {
            text.push_str(&format!(" - {key}={value}\n"));
        }
    }
    text.push_str(&format!("Created at:            \t{}\n", payload.created_at));
    text.push_str(&format!("Updated at:            \t{}\n", payload.updated_at));
    let data = payload.spec.extra.get("Data").and_then(|data| data.as_str());
    if let (Kind::Config, Some(bytes)) = (kind, data.and_then(base64::decode)) {
        text.push_str(&format!("Data:\n{}\n", String::from_utf8_lossy(&bytes)));
    }
    text
}

async fn remove(kind: Kind, shell: &mut Shell, names: &[String]) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for name in names {
        match shell.client.delete(&Route::new([kind.plural(), name])).await {
            Ok(()) => shell.out.line(name)?,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    super::failed(&failures)
}
