#!/bin/bash
# Proves a running test bed in about a minute: that what the cluster suite relies on works. Run it by enter.sh or run.sh; with the
# path of a program, that program is loaded as an image and run in a pod, too.
set -Eeuo pipefail
shopt -s inherit_errexit

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
: "${KEEPSET_BED_FAULTS:?run this by enter.sh}"
space="smoke-$$"
began=$SECONDS

# What a failed check saw last, and where it stood.
trap 'echo "FAILED at line $LINENO (from ${BASH_LINENO[*]}): $BASH_COMMAND" >&2; kubectl -n "$space" get pods,pvc,volumesnapshots,volumegroupsnapshots --no-headers | cut -c1-120 >&2; kubectl -n "$space" get events --sort-by=.lastTimestamp 2>/dev/null | grep -v MissingClusterDNS | tail -n 12 | cut -c1-240 >&2' ERR
trap 'rm -f "$KEEPSET_BED_FAULTS"/*; kubectl delete namespace "$space" --wait=false >/dev/null 2>&1 || true' EXIT

passed=0
ok() {
    passed=$((passed + 1))
    printf '%4d s  ok: %s\n' $((SECONDS - began)) "$*"
}
k() {
    kubectl -n "$space" "$@"
}
apply() {
    k apply -f - >/dev/null
}
# One field of an object reaches a value within a minute.
await() {
    k wait --timeout=60s --for="jsonpath=$2=$3" "$1" >/dev/null
}
equal() {
    [ "$1" = "$2" ] || { echo "expected '$2', got '$1'" >&2; return 1; }
}
# A pod came to a good end.
succeeded() {
    for _ in $(seq 300); do
        case "$(k get pod "$1" -o jsonpath='{.status.phase}')" in
        Succeeded) return 0 ;;
        Failed) break ;;
        esac
        sleep 0.2
    done
    k logs "$1" >&2
    return 1
}
# A claim: name, class, size, further lines of its spec.
claim() {
    apply <<EOF
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: $1}, spec: {storageClassName: $2, accessModes: [ReadWriteOnce], resources: {requests: {storage: $3}}, ${4:-volumeMode: Filesystem}}}
EOF
}
# A pod that runs a shell command once, with a claim at /data: name, claim, command, read-only.
begin() {
    apply <<EOF
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: data, persistentVolumeClaim: {claimName: $2}}]
  containers:
  - name: main
    image: $KEEPSET_BED_BUSYBOX
    imagePullPolicy: Never
    command: [sh, -c, "$3"]
    volumeMounts: [{name: data, mountPath: /data, readOnly: ${4:-false}}]
EOF
}
once() {
    begin "$@"
    succeeded "$1"
}

kubectl wait --for=condition=Ready --timeout=30s node/node1 >/dev/null
equal "$(kubectl get node node1 -o jsonpath='{.status.nodeInfo.kubeletVersion}')" "$(kubectl version -o json | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p' | sort -u)"
ok "the node is ready, and all versions are one"

kubectl create namespace "$space" >/dev/null
apply <<EOF
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000}
      containers:
      - name: main
        image: $KEEPSET_BED_BUSYBOX
        imagePullPolicy: Never
        command: [sh, -c, "date +%s.%N >> /data/started; hostname > /data/index.html; exec httpd -f -p 8080 -h /data"]
        readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: keepset-csi, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
EOF
await statefulset/web '{.status.readyReplicas}' 3
# The containers wrote themselves when they began.
times="$(for ordinal in 0 1 2; do k exec "web-$ordinal" -- cat /data/started; done)"
equal "$(sort -n <<<"$times")" "$times"
ok "a set of three came up in order, as a user without rights; exec works"

equal "$(k exec web-0 -- wget -qO- "http://$(k get service web -o jsonpath='{.spec.clusterIP}')" | sed 's/[0-9]$//')" web-
ok "a pod reaches a Service by its address"
k exec web-0 -- wget -qO- "$KEEPSET_BED_MINIO/minio/health/ready"
ok "a pod reaches MinIO"
k create role reader --verb=get --resource=pods >/dev/null
k create rolebinding reader --role=reader --serviceaccount="$space:default" >/dev/null
# kubectl from this machine, as the pod's account: its own namespace's pods, and nothing else.
apply <<EOF
apiVersion: v1
kind: Pod
metadata: {name: account}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: tools, hostPath: {path: $(dirname "$(command -v kubectl)")}}]
  containers:
  - name: main
    image: $KEEPSET_BED_BUSYBOX
    imagePullPolicy: Never
    command: [sh, -c, "/tools/kubectl get pod web-1 -o name && ! /tools/kubectl get secrets"]
    volumeMounts: [{name: tools, mountPath: /tools, readOnly: true}]
EOF
succeeded account
equal "$(k logs account | head -n 1)" pod/web-1
grep -q 'secrets is forbidden' <<<"$(k logs account)"
ok "a pod's account reaches the API server, and has the rights of its Role only"
equal "$(k logs web-0 2>&1 | wc -l)" 0
ok "logs are readable"

for ordinal in 0 1 2; do
    k exec "web-$ordinal" -- sh -c 'echo then >/data/file'
    apply <<EOF
{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: cut-$ordinal}, spec: {source: {persistentVolumeClaimName: data-web-$ordinal}}}
EOF
done
for ordinal in 0 1 2; do
    await "volumesnapshot/cut-$ordinal" '{.status.readyToUse}' true
    k exec "web-$ordinal" -- sh -c 'echo now >/data/file'
done
claim clone keepset-csi 64Mi 'dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: cut-1}'
begin clone clone 'grep -qx then /data/file && grep -qx web-1 /data/index.html && ! touch /data/x 2>/dev/null' true
claim copy keepset-csi 64Mi 'dataSource: {kind: PersistentVolumeClaim, name: data-web-2}'
begin copy copy 'grep -qx now /data/file && grep -qx web-2 /data/index.html'
succeeded clone
ok "a snapshot holds what was, its clone is mounted read-only"
succeeded copy
ok "a clone of a claim in use"

k patch pvc copy --type=merge --patch '{"spec": {"resources": {"requests": {"storage": "128Mi"}}}}' >/dev/null
await pvc/copy '{.status.capacity.storage}' 128Mi
ok "a claim grows"

# One process writes a number into one volume and then into the other: at any instant they are equal, or the first is one ahead.
for claim in left right; do
    claim "$claim" keepset-csi 64Mi
    k label pvc "$claim" pair=yes >/dev/null
    await "pvc/$claim" '{.status.phase}' Bound
done
# Pods with both: name, the two claims, command.
pair() {
    apply <<EOF
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: left, persistentVolumeClaim: {claimName: $2}}, {name: right, persistentVolumeClaim: {claimName: $3}}]
  containers:
  - name: main
    image: $KEEPSET_BED_BUSYBOX
    imagePullPolicy: Never
    command: [sh, -c, '$4']
    volumeMounts: [{name: left, mountPath: /left}, {name: right, mountPath: /right}]
EOF
}
pair writer left right 'n=0; while true; do n=$((n + 1)); echo $n >>/left/n; echo $n >>/right/n; done'
k wait --timeout=60s --for=condition=Ready pod/writer >/dev/null
echo 0.3 >"$KEEPSET_BED_FAULTS/group.wait"
apply <<EOF
{apiVersion: groupsnapshot.storage.k8s.io/v1, kind: VolumeGroupSnapshot, metadata: {name: pair}, spec: {source: {selector: {matchLabels: {pair: "yes"}}}}}
EOF
await volumegroupsnapshot/pair '{.status.readyToUse}' true
rm "$KEEPSET_BED_FAULTS/group.wait"
for claim in left right; do
    member="$(k get volumesnapshots -o jsonpath='{.items[?(@.spec.source.persistentVolumeClaimName=="'$claim'")].metadata.name}')"
    claim "$claim-then" keepset-csi 64Mi "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: $member}"
    await "pvc/$claim-then" '{.status.phase}' Bound
done
# Before the writer goes: what is compared was written while it ran, and it goes on.
before="$(k exec writer -- wc -l /left/n)"
pair reader left-then right-then 'l=$(tail -n 1 /left/n) r=$(tail -n 1 /right/n); echo $l $r; [ $l -gt 0 ] && [ $((l - r)) -ge 0 ] && [ $((l - r)) -le 1 ]'
succeeded reader
[ "$before" != "$(k exec writer -- wc -l /left/n)" ]
k delete pod writer >/dev/null
ok "a group snapshot is of one instant ($(k logs reader)), and the writer went on"

echo 3 >"$KEEPSET_BED_FAULTS/ready.wait"
apply <<EOF
{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: slow}, spec: {source: {persistentVolumeClaimName: data-web-0}}}
EOF
k wait --timeout=30s --for='jsonpath={.status.creationTime}' volumesnapshot/slow >/dev/null
equal "$(k get volumesnapshot slow -o jsonpath='{.status.readyToUse}')" false
await volumesnapshot/slow '{.status.readyToUse}' true
rm "$KEEPSET_BED_FAULTS/ready.wait"
ok "a snapshot is known to be cut before it is ready to use"

claim late keepset-csi-wffc 64Mi
equal "$(k get pvc late -o jsonpath='{.status.phase}')" Pending
begin late late 'touch /data/x'
for class in hostpath keepset-plain; do
    claim "$class" "$class" 64Mi
    begin "$class" "$class" 'echo kept >/data/file'
done
for pod in late hostpath keepset-plain; do
    succeeded "$pod"
done
for class in hostpath keepset-plain; do
    begin "$class-again" "$class" 'grep -qx kept /data/file'
done
for class in hostpath keepset-plain; do
    succeeded "$class-again"
done
ok "classes: bound with the first pod, folders of the node, a driver without snapshots"

apply <<EOF
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: raw}, spec: {storageClassName: keepset-csi, volumeMode: Block, accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Mi}}}}
EOF
block() {
    apply <<EOF
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  volumes: [{name: raw, persistentVolumeClaim: {claimName: raw}}]
  containers:
  - name: main
    image: $KEEPSET_BED_BUSYBOX
    imagePullPolicy: Never
    command: [sh, -c, "$2"]
    volumeDevices: [{name: raw, devicePath: /dev/raw}]
EOF
    succeeded "$1"
}
block write 'echo block | dd of=/dev/raw bs=512 seek=16383 conv=sync,fsync 2>/dev/null'
k delete pod write >/dev/null
block read 'dd if=/dev/raw bs=512 skip=16383 2>/dev/null | grep -q block'
ok "a block volume keeps what was written to its last sector"

claim disk keepset-ext4 64Mi
begin user disk 'echo kept >/data/file && sync && touch /data/ready && sleep 600'
for _ in $(seq 100); do
    k exec user -- test -e /data/ready 2>/dev/null && break
    sleep 0.2
done
apply <<EOF
{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: disk}, spec: {source: {persistentVolumeClaimName: disk}}}
EOF
claim larger keepset-ext4 128Mi 'dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: disk}'
once larger larger 'grep -qx kept /data/file && [ -d /data/lost+found ] && dd if=/dev/zero of=/data/big bs=1M count=80 && dd if=/dev/zero of=/data/more bs=1M count=80 2>&1 | grep space'
k patch pvc larger --type=merge --patch '{"spec": {"resources": {"requests": {"storage": "256Mi"}}}}' >/dev/null
once grown larger 'dd if=/dev/zero of=/data/more bs=1M count=80'
k delete pod user >/dev/null
ok "ext4: a copy of one in use is whole and larger, gets full, and grows"

echo '2 late-too' >"$KEEPSET_BED_FAULTS/CreateVolume.fail"
claim late-too keepset-csi 64Mi
await pvc/late-too '{.status.phase}' Bound
grep -qx '0 late-too' "$KEEPSET_BED_FAULTS/CreateVolume.fail"
ok "a planted fault failed two calls, then the claim was bound"

kubectl label namespace "$space" pod-security.kubernetes.io/enforce=restricted >/dev/null 2>&1
refused="$(k run root --image="$KEEPSET_BED_BUSYBOX" --restart=Never 2>&1 || true)"
grep -q 'violates PodSecurity "restricted' <<<"$refused"
kubectl label namespace "$space" pod-security.kubernetes.io/enforce- >/dev/null
ok "Pod Security refuses what is not restricted"

if [ $# -gt 0 ]; then
    "$here/load-image.sh" localhost/smoke:1 "$1"
    k run program --restart=Never --image=localhost/smoke:1 --image-pull-policy=Never -- --version >/dev/null
    succeeded program
    ok "the image of $1 runs: $(k logs program)"
fi

k delete volumegroupsnapshot --all --timeout=60s >/dev/null
kubectl delete namespace "$space" --timeout=90s >/dev/null
equal "$(kubectl get pv,volumesnapshotcontents,volumegroupsnapshotcontents -o name)" ""
ok "nothing is left of it"
echo "smoke: $passed passed, 0 failed"
