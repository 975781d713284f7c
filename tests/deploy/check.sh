#!/bin/bash
# Is what lies in deploy/ in order? The chart is linted, and must refuse wrong values with words that help; the manifests are what it renders;
# the alerts are checked, and tried on made-up series.
#
#   check.sh [--render]      --render writes deploy/manifests anew
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

programs="$(tests/testbed/cluster/build.sh deploy)"
export PATH="$programs:$PATH"
chart=deploy/chart
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

fail() {
    echo "deploy: $*" >&2
    exit 1
}

# What the chart makes of values. That its files are links to others is said by Helm each time.
render() {
    if ! helm template keepset "$chart" "$@" 2>"$work/err"; then
        grep -v 'found symbolic link' "$work/err" >&2
        return 1
    fi
}

# --- Manifests for those who have no Helm: without its labels.
manifest() {
    cat <<END
# $1, rendered from deploy/chart by \`tests/deploy/check.sh --render\`: change it there.
#
# Yours are: the image registry.example.com/keepset:0.1.0, and in the settings the cluster's name, the repository's address and the time zone.
# The namespace is shop, where the sets are, and the Secret keepset (docs/agent.md).
END
    render --namespace shop --values deploy/manifests/values.yaml --set "mode=$1" | grep -vE '^ *(helm.sh/chart|app.kubernetes.io/managed-by): |^# Source: '
}
for mode in agent cronjob; do
    manifest "$mode" >"$work/$mode.yaml"
    if [ "${1:-}" = --render ]; then
        cp "$work/$mode.yaml" "deploy/manifests/$mode.yaml"
    fi
    diff -u "deploy/manifests/$mode.yaml" "$work/$mode.yaml" >&2 || fail "deploy/manifests/$mode.yaml is not what the chart renders: tests/deploy/check.sh --render"
done

# --- The chart
for values in "$chart"/ci/*-values.yaml deploy/examples/*/values.yaml; do
    helm lint --strict --quiet "$chart" --values "$values" 2>"$work/err" || { cat "$work/err" >&2; fail "the chart does not pass with $values"; }
    render --namespace keepset --values "$values" >"$work/$(basename "$values")"
done

# The account of each namespace may do what deploy/rbac.yaml says, word for word: in four namespaces, and the agent's own has none of it.
python3 - "$work/everything-values.yaml" <<'END'
import sys
rules = open("deploy/rbac.yaml").read().split("\nkind: Role\n")[1].split("\nrules:\n")[1].split("\n---")[0]
rendered = open(sys.argv[1]).read()
assert rendered.count("priorityClassName: system-cluster-critical\n") == 2, "the settings name no priority for movers"
assert rules.count("- apiGroups:") > 8 and rendered.count(rules) == 4, "the Roles are not those of deploy/rbac.yaml"
END

# A value that makes no sense, and a word that its refusal must have.
refused() {
    local words="$1"
    shift
    if render --namespace keepset --values "$chart/ci/least-values.yaml" "$@" >/dev/null 2>"$work/refusal"; then
        fail "the chart takes $*"
    fi
    grep -qF -- "$words" "$work/refusal" || { cat "$work/refusal" >&2; fail "the refusal of $* does not say: $words"; }
}
refused "additional properties 'replica' not allowed" --set replica=2
refused "at '/image': additional properties 'name' not allowed" --set image.name=keepset
refused "at '/metrics/serviceMonitor': additional properties" --set metrics.serviceMonitor.enable=true
refused "at '/mode': value must be one of 'agent', 'cronjob'" --set mode=both
refused "at '/replicas'" --set replicas=-1
refused "at '/image/digest'" --set image.digest=latest
refused "at '/existingSecret'" --set existingSecret=
refused "at '/terminationGracePeriodSeconds'" --set terminationGracePeriodSeconds=5
refused "at '/settings/agent/listen'" --set settings.agent.listen=everywhere
refused "--set image.repository=" --set image.repository=
refused "--set settings.cluster=" --set settings.cluster=
refused "--set rbac.clusterWide=true" --set 'settings.agent.namespaces={*}'
refused "settings.kubernetes.image" --set settings.kubernetes.image=other
refused "serviceAccount.name" --set serviceAccount.create=false
refused "--set mode=agent" --set mode=cronjob --set metrics.prometheusRule.enabled=true

# --- Alerts, the dashboard
promtool check rules --lint-fatal "$chart/files/alerts.yaml" >"$work/out" 2>&1 || { cat "$work/out" >&2; fail "alerts.yaml does not pass"; }
promtool test rules tests/deploy/alerts.yaml >"$work/out" 2>&1 || { cat "$work/out" >&2; fail "an alert does not come, or comes when it must not"; }
python3 - <<'END'
# Each alert is tried, and has its part in the runbook; each expression of the dashboard is one.
import json, re, subprocess, sys
alerts = open("deploy/alerts.yaml").read()
names = re.findall(r"- alert: (\w+)", alerts)
tests, runbook = open("tests/deploy/alerts.yaml").read(), open("docs/runbook.md").read()
missing = [name for name in names if f"alertname: {name}\n    exp_alerts" not in tests and not re.search(rf'alertname="{name}"', tests)]
assert names and not missing, f"not tried: {missing}"
missing = [name for name in names if f"\n### {name}\n" not in runbook or f"runbook: docs/runbook.md#{name.lower()}\n" not in alerts]
assert not missing, f"not in the runbook: {missing}"
panels = json.load(open("deploy/dashboard.json"))["panels"]
for target in (target for panel in panels for target in panel["targets"]):
    expression = target["expr"].replace("$__interval", "5m")
    done = subprocess.run(["promtool", "promql", "format", "--experimental", expression], capture_output=True, text=True)
    assert done.returncode == 0, f"{expression}: {done.stderr}"
END
echo "deploy: chart, manifests and alerts are in order" >&2
