//! Containers of a former life of this host. A node that lost its state comes back under another id (a
//! restored backup, a new join), and what the old one ran would hold the engine's network, its addresses
//! and its ports for ever: nobody else knows of it, and nobody else may join a network of ours.

use bollard::query_parameters as query;

use super::{Act, DockerRuntime, SLOW};
use crate::runtime::{Error, spec};

impl DockerRuntime {
    /// Ends the containers of tasks of other nodes in a network of this one.
    pub(super) async fn end_former(&self, network: &str) -> Result<(), Error> {
        let filters = [
            ("network", vec![network.to_owned()]),
            ("label", vec![spec::LABEL_TASK.to_owned(), spec::LABEL_NODE.to_owned()]),
        ];
        let list = self.containers(filters).await?;
        let own = self.settings.node.to_string();
        for container in list {
            let labels = container.labels.unwrap_or_default();
            let (Some(id), Some(node)) = (container.id, labels.get(spec::LABEL_NODE)) else {
                continue;
            };
            if *node == own {
                continue;
            }
            let name = labels.get(spec::LABEL_TASK).map_or("", String::as_str);
            tracing::info!(
                task.id = name,
                node.id = node,
                "what a former node of this host ran is removed"
            );
            let options =
                query::RemoveContainerOptionsBuilder::default().v(true).force(true).build();
            let removed = self
                .call(Act::End, SLOW, |docker| async move {
                    docker.remove_container(&id, Some(options)).await
                })
                .await;
            match removed {
                Ok(()) | Err(Error::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
