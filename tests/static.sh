#!/bin/sh
# Proves that a program needs nothing beside itself: it is linked statically, and runs with an empty folder as its root.
# usage: tests/static.sh PROGRAM
set -eu
program=$1
if readelf --program-headers "$program" | grep -q INTERP; then
    echo "$program asks for a dynamic loader" >&2
    exit 1
fi
root=$(mktemp -d)
trap 'rm -r "$root"' EXIT
cp "$program" "$root/falco-operator"
chroot "$root" /falco-operator --version
# A page of YAML, and a rule that is read, checked and rendered: more than the first lines of main.
chroot "$root" /falco-operator crd | grep -c '^kind: CustomResourceDefinition'
cat > "$root/rule.yaml" <<'RULE'
apiVersion: mumoshu.github.io/v1alpha1
kind: FalcoRule
metadata: {name: bash, namespace: default}
spec:
  rule: shell_in_container
  desc: notice shell activity within a container
  condition: container.id != host and proc.name = bash and evt.type = execve
  output: shell in a container (shell=%proc.name)
  priority: WARNING
RULE
chroot "$root" /falco-operator lint /rule.yaml
chroot "$root" /falco-operator render /rule.yaml
# As the init container does it.
mkdir "$root/opt" "$root/proc"
mount -t proc proc "$root/proc"
chroot "$root" /falco-operator install /opt
umount "$root/proc"
cmp "$program" "$root/opt/falco-operator"
echo "$program needs nothing but itself"
