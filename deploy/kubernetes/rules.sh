#!/usr/bin/env bash
# Prints base/rules.yaml: the recording and alert rules of deploy/prometheus as the
# Prometheus operator takes them, without rules/compose.yml.
set -euo pipefail
cd "$(dirname "$0")/../prometheus/rules"
cat <<'HEAD'
# Made by "make generate" of deploy/prometheus.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: signpost
spec:
  groups:
HEAD
for file in recording.yml alerts.yml ../kubernetes/alerts.yml; do
	sed -e '1,/^groups:$/d' -e 's/^\(.\)/  \1/' "$file"
done
