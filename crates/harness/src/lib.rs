//! What the developer verbs and the whole-system tests share: processes, packages, namespaces, the cluster.
