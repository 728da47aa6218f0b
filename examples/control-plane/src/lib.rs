//! The control-plane program: signing service and configuration for the mesh
