// A CSI driver for the test bed, on one btrfs file system: each volume a subvolume, each snapshot a read-only one, so that snapshots
// and clones are atomic and take no time. It also plants faults on request. It serves one node, registers itself with the kubelet, and
// has no use outside the bed.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver answers all the calls of the CSI services and of the kubelet's registration.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedGroupControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	name      string
	socket    string
	node      string
	snapshots bool
	store     *store
	freezer   freezer
	faults    faults
}

func main() {
	name := flag.String("name", "csi.keepset.dev", "the driver's name")
	root := flag.String("root", "", "a folder on btrfs, for volumes and snapshots")
	socket := flag.String("socket", "", "where to serve CSI")
	register := flag.String("register", "", "where to serve the kubelet's plugin registration")
	node := flag.String("node", "node1", "this node's name")
	snapshots := flag.Bool("snapshots", true, "whether the driver can cut snapshots and clone")
	planted := flag.String("faults", "", "the folder of planted faults")
	pods := flag.String("pods", "", "the control group below which pods run, frozen while a group is cut")
	flag.Parse()

	store, err := openStore(*root)
	if err != nil {
		log.Fatal(err)
	}
	d := &driver{name: *name, socket: *socket, node: *node, snapshots: *snapshots, store: store, freezer: freezer{*pods}, faults: faults{folder: *planted}}

	server := grpc.NewServer(grpc.UnaryInterceptor(d.intercept))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterGroupControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	go serve(server, *socket)

	registrar := grpc.NewServer()
	registration.RegisterRegistrationServer(registrar, d)
	serve(registrar, *register)
}

func serve(server *grpc.Server, socket string) {
	// What a driver that was killed left behind.
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}

// intercept logs each call that may change something, and lets planted faults act before it.
func (d *driver) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := method(info.FullMethod)
	if err := d.faults.act(ctx, method, request); err != nil {
		log.Printf("%s %v: %v", method, request, err)
		return nil, err
	}
	response, err := handler(ctx, request)
	if err != nil {
		log.Printf("%s %v: %v", method, request, err)
		if _, known := status.FromError(err); !known {
			err = status.Error(codes.Internal, err.Error())
		}
	} else if !quiet[method] {
		log.Printf("%s %v: %v", method, request, response)
	}
	return response, err
}

// Asked over and over, and never of interest.
var quiet = map[string]bool{"Probe": true, "GetPluginInfo": true, "GetPluginCapabilities": true, "ControllerGetCapabilities": true,
	"GroupControllerGetCapabilities": true, "NodeGetCapabilities": true, "NodeGetVolumeStats": true, "ListSnapshots": true}

// GetInfo tells the kubelet which driver speaks here.
func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, result *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered with the kubelet: %v %s", result.PluginRegistered, result.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	services := []csi.PluginCapability_Service_Type{csi.PluginCapability_Service_CONTROLLER_SERVICE}
	if d.snapshots {
		services = append(services, csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)
	}
	response := &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{
		Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}}}}}
	for _, service := range services {
		response.Capabilities = append(response.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: service}}})
	}
	return response, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}
