// Package tools pins the programs that the project's tasks build.
package tools

import (
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
