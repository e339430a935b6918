// Command etcd is the database of the Kubernetes API server. It is built from here because the module of the original
// command replaces modules by paths, which "go install" refuses.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
