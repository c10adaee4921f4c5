// Package tools pins the programs that the project's tasks build.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
