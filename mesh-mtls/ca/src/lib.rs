//! The embedded certificate authority of the mesh, its CSR service and client
