//! The VIP: one Service in front of all front ends; and one that names each of them.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config::PEERS_PORT;
use super::metadata;
use crate::crd::v1alpha1::ServiceType;
use crate::names::{Component, VIP, VIP_IN};
use crate::validate::ValidatedPool;

/// The VIP Service. Addresses and node ports are the cluster's to give and are not part of it.
pub fn service(pool: &ValidatedPool) -> Service {
    let wanted = &pool.spec.service;
    let balanced = wanted.type_ == ServiceType::LoadBalancer;
    let mut selector = pool.names.selector(Component::FrontEnd);
    selector.insert(VIP.into(), VIP_IN.into());
    let mut metadata = metadata::owned(pool, pool.names.service(), Component::Vip);
    if !wanted.annotations.is_empty() {
        metadata.annotations = Some(wanted.annotations.clone());
    }
    let ports = pool.listeners().map(|(transport, port)| ServicePort {
        name: Some(transport.as_str().into()),
        port: i32::from(port),
        protocol: Some(transport.protocol().into()),
        target_port: Some(IntOrString::String(transport.as_str().into())),
        ..ServicePort::default()
    });
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(wanted.type_.as_str().into()),
            selector: Some(selector),
            ports: Some(ports.collect()),
            session_affinity: Some("None".into()),
            external_traffic_policy: (wanted.type_ != ServiceType::ClusterIp)
                .then(|| wanted.external_traffic_policy.as_str().to_owned()),
            load_balancer_class: wanted.load_balancer_class.clone().filter(|_| balanced),
            load_balancer_source_ranges: Some(wanted.load_balancer_source_ranges.clone())
                .filter(|ranges| balanced && !ranges.is_empty()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The headless Service of all front ends, also of those that take no clients: for people and monitoring. Front ends
/// themselves dial the addresses of each other's leases.
pub fn peers(pool: &ValidatedPool) -> Service {
    Service {
        metadata: metadata::owned(pool, pool.names.peers(), Component::FrontEnd),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(pool.names.selector(Component::FrontEnd)),
            ports: Some(vec![ServicePort {
                name: Some("peers".into()),
                port: i32::from(PEERS_PORT),
                protocol: Some("TCP".into()),
                target_port: Some(IntOrString::String("peers".into())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
