#!/bin/bash
# The first process in a test bed's namespaces: starts everything, writes what to use into the file "env", and stays. up.sh calls it.
set -Eeuo pipefail
shopt -s inherit_errexit
# Unmasked folders and sockets, whatever the caller's shell does.
umask 022

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bed="$1" id="$2" programs="$3" minio="$4"
# The folders of images, Kubernetes, etcd and the driver.
IFS=: read -r images kubernetes _ <<<"$programs"
losetup="$(command -v losetup)"
mkdir "$bed/bin" "$bed/faults"
mkdir -m 700 "$bed/services"
export PATH="$bed/bin:$programs:$PATH"
unset KUBECONFIG
address=10.244.0.1
server="https://$address:6443"
touch "$bed/born"

say() {
    printf '%(%H:%M:%S)T %s\n' -1 "$*"
}

# Ends the bed: up.sh shows the reason.
fail() {
    say "$*"
    echo "$*" >"$bed/failed"
    exit 1
}
trap 'fail "line $LINENO of init.sh failed: $BASH_COMMAND"' ERR

declare -A daemon
# A program in the background, whose end is noted: nothing here may end while the bed is up, unless service.sh ends it.
start() {
    local name="$1" service="$bed/services/$1"
    shift
    printf '#!/bin/bash\nexec %s>>%q 2>&1\n' "$(printf '%q ' "$@")" "$bed/log/$name.log" >"$service"
    chmod 700 "$service"
    "$service" &
    daemon[$!]="$name"
    echo $! >"$service.pid"
    say "started $name"
}

# Waits for a command to succeed, for as long as the program runs that it depends on, and gives up with the end of that one's log.
await() {
    local what="$1" name="$2" until=$((SECONDS + 60)) why
    shift 2
    until "$@" >"$bed/log/await.log" 2>&1; do
        if [ ! -d "/proc/$(cat "$bed/services/$name.pid")" ]; then
            why="$name has ended"
        elif [ "$SECONDS" -lt "$until" ]; then
            sleep 0.05
            continue
        else
            why="not so within a minute: $(tail -n 1 "$bed/log/await.log")"
        fi
        # The programs of Kubernetes mark what is no mere information.
        grep -vE '^I[0-9]{4} ' "$bed/log/$name.log" | tail -n 4 || true
        fail "in vain: $what: $why (see $name.log)"
    done
    say "$what"
}

# --- Mounts: what programs insist on having at a fixed place is the bed's own there.
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
for folder in lib log; do
    mkdir -p "$bed/var/$folder" "$bed/var/$folder.work"
    mount -t overlay overlay -o "lowerdir=/var/$folder,upperdir=$bed/var/$folder,workdir=$bed/var/$folder.work" "/var/$folder"
done
mkdir -p "$bed/hostpath" "$bed/kubelet" /var/lib/kubelet
# Once more: another bed that goes takes an unused one away.
mkdir -p /tmp/hostpath_pv
mount --bind "$bed/hostpath" /tmp/hostpath_pv
mount --bind "$bed/kubelet" /var/lib/kubelet

# --- Volumes: btrfs in a file that takes the space it needs. The loop device goes with the mount.
truncate -s 64G "$bed/btrfs.image"
mkfs.btrfs -q "$bed/btrfs.image" >"$bed/log/mkfs.log" 2>&1
mkdir "$bed/btrfs"
mount -o loop,noatime "$bed/btrfs.image" "$bed/btrfs"
# Loop devices outlive the bed where the driver and the kubelet attach them for block volumes: down.sh wants a list.
cat >"$bed/bin/losetup" <<EOF
#!/bin/bash
"$losetup" "\$@" || exit
case " \$* " in
*" -f "*|*" --find "*) "$losetup" --list --noheadings --output NAME,BACK-INO,BACK-MAJ:MIN --associated "\${!#}" >>"$bed/loops" ;;
esac
EOF
chmod 755 "$bed/bin/losetup"

# --- Network: one bridge, whose address the node, the API server and MinIO share, so that one URL works from everywhere in here.
hostname node1
ip link set lo up
ip link add cni0 type bridge
ip address add "$address/24" dev cni0
ip link set cni0 up
# Services have no route of their own: they are caught on their way out.
ip route add default dev cni0
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.bridge.bridge-nf-call-iptables=1

# --- Control groups: all of the pods' under one of the bed's own, in each hierarchy.
for top in $(findmnt --raw --noheadings --types cgroup,cgroup2 --output TARGET); do
    mkdir -p "$top/$id"
    for setting in cpuset.cpus cpuset.mems; do
        [ ! -e "$top/$setting" ] || [ -e "$top/cgroup.controllers" ] || cat "$top/$setting" >"$top/$id/$setting"
    done
    if [ -e "$top/cgroup.subtree_control" ] && [ -s "$top/cgroup.controllers" ]; then
        sed 's/^\| / +/g' "$top/cgroup.controllers" >"$top/cgroup.subtree_control"
    fi
done

# --- Certificates
pki="$bed/pki"
mkdir -m 700 "$pki"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$pki/ca.key" -out "$pki/ca.crt" -days 30 -subj /CN=keepset-bed \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
certificate() {
    local name="$1" subject="$2" names="${3:-}"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$pki/$name.key" -out "$pki/$name.crt" -days 30 -subj "$subject" \
        -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
        -addext extendedKeyUsage=serverAuth,clientAuth ${names:+-addext "subjectAltName=$names"} 2>/dev/null
}
# A client's certificate inside the settings with which it reaches the API server.
kubeconfig() {
    certificate "$1" "$2"
    cat >"$pki/$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters: [{name: bed, cluster: {server: "$server", certificate-authority-data: $(base64 -w0 <"$pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 <"$pki/$1.crt"), client-key-data: $(base64 -w0 <"$pki/$1.key")}}]
contexts: [{name: bed, context: {cluster: bed, user: $1}}]
current-context: bed
EOF
}
certificate apiserver /CN=kube-apiserver "IP:$address,IP:10.96.0.1,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
# A superuser towards the kubelet, for exec and logs.
certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
certificate front-proxy /CN=front-proxy-client
kubeconfig admin /O=system:masters/CN=admin
kubeconfig controller-manager /CN=system:kube-controller-manager
kubeconfig scheduler /CN=system:kube-scheduler
kubeconfig proxy /CN=system:kube-proxy
kubeconfig kubelet /O=system:nodes/CN=system:node:node1
openssl ecparam -name prime256v1 -genkey -noout -out "$pki/accounts.key"
openssl ec -in "$pki/accounts.key" -pubout -out "$pki/accounts.pub" 2>/dev/null
say "certificates made"

# --- etcd and the API server. A bed's data needs not outlive a power cut.
start etcd etcd --name bed --data-dir "$bed/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --logger zap --log-level warn
start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address="$address" --advertise-address="$address" --secure-port=6443 \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" --cert-dir="$pki" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/accounts.pub" --service-account-signing-key-file="$pki/accounts.key" \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --allow-privileged=true --enable-admission-plugins=NodeRestriction \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key"

# --- MinIO. A folder in its data folder is a bucket.
access_key="$(openssl rand -hex 10)" secret_key="$(openssl rand -hex 20)" bucket=keepset
mkdir -p "$bed/minio/$bucket"
start minio env "MINIO_ROOT_USER=$access_key" "MINIO_ROOT_PASSWORD=$secret_key" MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CI_CD=on "HOME=$bed" \
    "$minio" server --address "$address:9000" --console-address 127.0.0.1:0 "$bed/minio"

# --- The container runtime, and the images
mkdir -p "$bed/containerd" "$bed/cni/conf" "$bed/cni/addresses"
cat >"$bed/containerd/config.toml" <<EOF
version = 2
root = "$bed/containerd/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$bed/cni/conf"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
EOF
cat >"$bed/cni/conf/bed.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$bed/cni/addresses", "ranges": [[{"subnet": "10.244.0.0/24", "rangeStart": "10.244.0.10", "gateway": "$address"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
EOF
start containerd containerd --config "$bed/containerd/config.toml"
await "containerd answers" containerd ctr version
for image in pause busybox etcd; do
    ctr -n k8s.io images import "$images/$image.tar" >>"$bed/log/images.log" 2>&1 || fail "the image $image was not imported (see images.log)"
done
say "images imported"

# --- The node
cat >"$bed/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$id
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$pki/ca.crt"}}
authorization: {mode: Webhook}
enforceNodeAllocatable: []
evictionHard: {memory.available: 10Mi, nodefs.available: 10Mi, imagefs.available: 10Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
makeIPTablesUtilChains: false
volumePluginDir: /var/lib/kubelet/volume-plugins
resolvConf: ""
maxPods: 200
# A changed ConfigMap is with its pods soon.
syncFrequency: 10s
kubeAPIQPS: 200
kubeAPIBurst: 400
EOF
cat >"$bed/proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: 127.0.0.1
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
hostnameOverride: node1
clusterCIDR: 10.244.0.0/24
clientConnection: {kubeconfig: "$pki/proxy.kubeconfig"}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF
export KUBECONFIG="$pki/admin.kubeconfig"
await "the API server is ready" kube-apiserver curl -sSf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "$server/readyz"
# CSI first: the kubelet finds the drivers when it comes.
csi() {
    local name="$1" folder="$bed/kubelet/plugins/$1" short="${1%%.*}"
    shift
    mkdir -p "$folder" "$bed/kubelet/plugins_registry" "$bed/btrfs/$short"
    start "$short-driver" driver --name "$name" --root "$bed/btrfs/$short" --socket "/var/lib/kubelet/plugins/$name/csi.sock" \
        --register "/var/lib/kubelet/plugins_registry/$name-reg.sock" --faults "$bed/faults" --pods "/$id" "$@"
    start "$short-provisioner" csi-provisioner --kubeconfig "$KUBECONFIG" --csi-address "$folder/csi.sock" --extra-create-metadata \
        --kube-api-qps=200 --kube-api-burst=400 --retry-interval-max=5s
}
csi csi.keepset.dev
start csi-resizer csi-resizer --kubeconfig "$KUBECONFIG" --csi-address "$bed/kubelet/plugins/csi.keepset.dev/csi.sock" \
    --kube-api-qps=200 --kube-api-burst=400 --retry-interval-max=5s
csi plain.keepset.dev --snapshots=false
start kubelet kubelet --config="$bed/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig" --hostname-override=node1 --node-ip="$address" \
    --cert-dir="$bed/kubelet/pki" --root-dir=/var/lib/kubelet
start kube-proxy kube-proxy --config="$bed/proxy.yaml"
start kube-scheduler kube-scheduler --kubeconfig="$pki/scheduler.kubeconfig" --authentication-kubeconfig="$pki/scheduler.kubeconfig" \
    --authorization-kubeconfig="$pki/scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
# The controller manager ends at once where it comes before the rules that let it read these.
reader() {
    kubectl -n kube-system get rolebinding/system::extension-apiserver-authentication-reader rolebinding/system::leader-locking-kube-controller-manager \
        configmap/extension-apiserver-authentication
}
await "the first rules are there" kube-apiserver reader
start kube-controller-manager kube-controller-manager --kubeconfig="$pki/controller-manager.kubeconfig" \
    --authentication-kubeconfig="$pki/controller-manager.kubeconfig" --authorization-kubeconfig="$pki/controller-manager.kubeconfig" \
    --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt" --cluster-signing-cert-file="$pki/ca.crt" \
    --cluster-signing-key-file="$pki/ca.key" --use-service-account-credentials=true --leader-elect=false --bind-address=127.0.0.1 \
    --enable-hostpath-provisioner=true --flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins --kube-api-qps=200 --kube-api-burst=400
kubectl apply --server-side -f "${kubernetes:?}/crds" >"$bed/log/apply.log" 2>&1 || fail "the kinds of snapshots were refused: $(tail -n 1 "$bed/log/apply.log")"
await "the kinds of snapshots are served" kube-apiserver kubectl apply -f "$here/classes.yaml"
start snapshot-controller snapshot-controller --kubeconfig "$KUBECONFIG" --kube-api-qps=200 --kube-api-burst=400 --retry-interval-max=5s
start snapshotter csi-snapshotter --kubeconfig "$KUBECONFIG" --csi-address "$bed/kubelet/plugins/csi.keepset.dev/csi.sock" --extra-create-metadata \
    --kube-api-qps=200 --kube-api-burst=400 --retry-interval-max=5s

await "the node is ready" kubelet kubectl wait --for=condition=Ready node/node1 --timeout=1s
await "accounts are handed out" kube-controller-manager kubectl -n default get serviceaccount/default
await "MinIO answers" minio curl -sSf "http://$address:9000/minio/health/ready"

cat >"$bed/env.new" <<EOF
KEEPSET_BED=$bed
KUBECONFIG=$KUBECONFIG
PATH=$PATH
KEEPSET_BED_MINIO=http://$address:9000
KEEPSET_BED_BUCKET=$bucket
KEEPSET_BED_ACCESS_KEY=$access_key
KEEPSET_BED_SECRET_KEY=$secret_key
KEEPSET_BED_FAULTS=$bed/faults
KEEPSET_BED_BUSYBOX=localhost/busybox:1
KEEPSET_BED_ETCD=localhost/etcd:1
EOF
chmod 600 "$bed/env.new"
mv "$bed/env.new" "$bed/env"
say "up"

# Stays for as long as the bed lives, and notes which program ended in it.
trap - ERR
set +e
while true; do
    wait -n -p ended
    code=$?
    name="${daemon[${ended:-0}]:-}"
    if [ -z "${ended:-}" ]; then
        sleep 1
    elif [ -n "$name" ] && [ ! -e "$bed/services/$name.stopped" ]; then
        say "$name ended with exit code $code"
        echo "$name" >>"$bed/ended"
    fi
done
