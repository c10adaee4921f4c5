// Package tools pins the programs that the project's tasks build.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
