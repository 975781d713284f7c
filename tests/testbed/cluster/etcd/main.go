// The etcd server. Upstream builds it from a module that cannot be required by others, so that its main function stands here.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
