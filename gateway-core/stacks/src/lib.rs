//! The stacks: gateway, ingress, sidecar inbound and outbound, each the readable list of its layers
