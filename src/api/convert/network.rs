//! Networks.

use serde_json::{Value, json};

use super::value;
use crate::domain::Network;
use crate::domain::task::TaskAddress;
use crate::state::State;

/// Key of the VXLAN identifier among a network's options.
const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// A cluster network as `GET /networks/{id}` shows it.
pub(in crate::api) fn network(network: &Network) -> Value {
    json!({
        "Name": network.name,
        "Id": network.id.to_string(),
        "Created": network.meta.created_at.to_string(),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv6": false,
        "IPAM": {
            "Driver": "default",
            "Options": null,
            "Config": [{"Subnet": network.subnet.to_string()}],
        },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": null,
        "Options": {VNI: network.vni.to_string()},
        "Labels": value(&network.labels),
    })
}

/// A network of the engine's own that services may name, as clients look it up in swarm scope.
pub(in crate::api) fn predefined(name: &str, driver: &str) -> Value {
    json!({
        "Name": name,
        "Id": name,
        "Created": "0001-01-01T00:00:00Z",
        "Scope": "swarm",
        "Driver": driver,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": []},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": null,
        "Options": null,
        "Labels": null,
    })
}

/// A task's place in a network (`NetworksAttachments`); `None` when the network is gone.
pub(in crate::api) fn network_attachment(state: &State, address: &TaskAddress) -> Option<Value> {
    let network = state.networks.get(&address.network)?;
    Some(json!({
        "Network": {
            "ID": network.id.to_string(),
            "Version": {"Index": network.meta.spec_revision.0},
            "CreatedAt": network.meta.created_at.to_string(),
            "UpdatedAt": network.meta.updated_at.to_string(),
            "Spec": {
                "Name": network.name,
                "Labels": value(&network.labels),
                "DriverConfiguration": {"Name": "overlay"},
                "IPAMOptions": {"Driver": {"Name": "default"}},
                "Scope": "swarm",
            },
            "DriverState": {"Name": "overlay", "Options": {VNI: network.vni.to_string()}},
            "IPAMOptions": {
                "Driver": {"Name": "default"},
                "Configs": [{"Subnet": network.subnet.to_string()}],
            },
        },
        "Addresses": [format!("{}/{}", address.addr, network.subnet.prefix)],
    }))
}
