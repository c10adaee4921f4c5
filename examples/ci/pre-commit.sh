#!/bin/sh
# .git/hooks/pre-commit: what is about to be committed under falco/ is checked first.
set -eu
changed=$(git diff --cached --name-only --diff-filter=d -- falco)
[ -z "$changed" ] || exec falco-operator lint $changed
