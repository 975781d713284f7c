package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (d *driver) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	response := &csi.GroupControllerGetCapabilitiesResponse{}
	if d.snapshots {
		response.Capabilities = append(response.Capabilities, &csi.GroupControllerServiceCapability{
			Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
				Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT}}})
	}
	return response, nil
}

// CreateVolumeGroupSnapshot cuts several volumes at one instant: btrfs can't, so that the pods that have them mounted stand still
// meanwhile.
func (d *driver) CreateVolumeGroupSnapshot(_ context.Context, request *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	var known group
	found, err := d.store.load("groups", request.Name, &known)
	if err != nil {
		return nil, err
	}
	if !found {
		if known, err = d.cutGroup(request.Name, request.SourceVolumeIds); err != nil {
			return nil, err
		}
	}
	described, err := d.describeGroup(known)
	if err != nil {
		return nil, err
	}
	var sources []string
	for _, member := range described.Snapshots {
		sources = append(sources, member.SourceVolumeId)
	}
	if !slices.Equal(slices.Sorted(slices.Values(sources)), slices.Sorted(slices.Values(request.SourceVolumeIds))) {
		return nil, status.Errorf(codes.AlreadyExists, "the group %s is of other volumes", known.ID)
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: described}, nil
}

func (d *driver) cutGroup(name string, volumes []string) (group, error) {
	var members []snapshot
	var mounted []func(mount) bool
	for _, id := range volumes {
		source, err := d.volume(id)
		if err != nil {
			return group{}, err
		}
		members = append(members, snapshot{ID: name + "-" + id, Volume: source, Group: name})
		has, err := d.has(source.ID)
		if err != nil {
			return group{}, err
		}
		mounted = append(mounted, has)
	}
	made := group{ID: name}
	err := d.freezer.whileFrozen(mounted, func() error {
		made.Cut = time.Now()
		for _, member := range members {
			if err := d.store.cut(member.Volume.ID, member.ID); err != nil {
				return err
			}
			time.Sleep(d.faults.wait("group"))
		}
		return nil
	})
	if err != nil {
		return group{}, err
	}
	for _, member := range members {
		member.Cut = made.Cut
		if err := d.store.save("snapshots", member.ID, member); err != nil {
			return group{}, err
		}
		made.Snapshots = append(made.Snapshots, member.ID)
	}
	return made, d.store.save("groups", made.ID, made)
}

func (d *driver) describeGroup(g group) (*csi.VolumeGroupSnapshot, error) {
	described := &csi.VolumeGroupSnapshot{GroupSnapshotId: g.ID, CreationTime: timestamppb.New(g.Cut), ReadyToUse: true}
	for _, id := range g.Snapshots {
		var member snapshot
		if found, err := d.store.load("snapshots", id, &member); err != nil {
			return nil, err
		} else if !found {
			return nil, fmt.Errorf("the group %s lacks its member %s", g.ID, id)
		}
		described.Snapshots = append(described.Snapshots, d.describe(member))
		described.ReadyToUse = described.ReadyToUse && described.Snapshots[len(described.Snapshots)-1].ReadyToUse
	}
	return described, nil
}

func (d *driver) GetVolumeGroupSnapshot(_ context.Context, request *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	var known group
	found, err := d.store.load("groups", request.GroupSnapshotId, &known)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, status.Errorf(codes.NotFound, "there is no group %s", request.GroupSnapshotId)
	}
	described, err := d.describeGroup(known)
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: described}, err
}

func (d *driver) DeleteVolumeGroupSnapshot(_ context.Context, request *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	var known group
	if _, err := d.store.load("groups", request.GroupSnapshotId, &known); err != nil {
		return nil, err
	}
	for _, id := range known.Snapshots {
		if err := d.store.forget("snapshots", id); err != nil {
			return nil, err
		}
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, d.store.forget("groups", request.GroupSnapshotId)
}

// freezer stops the pods below one control group for a moment.
type freezer struct {
	pods string
}

// whileFrozen runs an action while every container stands still that has a mount of these kinds.
func (f freezer) whileFrozen(mounted []func(mount) bool, action func() error) (err error) {
	groups, err := f.groupsOf(mounted)
	if err != nil {
		return err
	}
	defer func() {
		for _, group := range groups {
			err = errors.Join(err, group.set(false))
		}
	}()
	for _, group := range groups {
		if err := group.set(true); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for _, group := range groups {
		for !group.stands() {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not freeze", group)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return action()
}

// groupsOf finds the containers by what their processes have mounted.
func (f freezer) groupsOf(mounted []func(mount) bool) ([]frozen, error) {
	if f.pods == "" {
		return nil, errors.New("no control group of pods was given")
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var groups []frozen
	for _, process := range processes {
		pid := filepath.Base(process)
		group, ok := f.groupOf(pid)
		if !ok || slices.Contains(groups, group) {
			continue
		}
		// A process that has ended meanwhile has nothing mounted.
		found, err := mountsOf(pid, func(m mount) bool {
			return slices.ContainsFunc(mounted, func(has func(mount) bool) bool { return has(m) })
		})
		if err == nil && len(found) > 0 {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// groupOf is the control group that can be frozen, of a process in a pod.
func (f freezer) groupOf(pid string) (frozen, bool) {
	content, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(content)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], f.pods+"/") {
			continue
		}
		switch parts[1] {
		case "freezer":
			return frozen("/sys/fs/cgroup/freezer" + parts[2]), true
		case "":
			// Version 2, where it is the only hierarchy.
			if group := frozen("/sys/fs/cgroup" + parts[2]); group.second() {
				return group, true
			}
		}
	}
	return "", false
}

// frozen is the folder of a control group, of version 1 or 2.
type frozen string

func (g frozen) second() bool {
	_, err := os.Stat(filepath.Join(string(g), "cgroup.freeze"))
	return err == nil
}

func (g frozen) set(freeze bool) error {
	file, on, off := "freezer.state", "FROZEN", "THAWED"
	if g.second() {
		file, on, off = "cgroup.freeze", "1", "0"
	}
	if !freeze {
		on = off
	}
	err := os.WriteFile(filepath.Join(string(g), file), []byte(on), 0)
	// A container that has ended is as still as can be.
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (g frozen) stands() bool {
	if g.second() {
		events, err := os.ReadFile(filepath.Join(string(g), "cgroup.events"))
		return err != nil || strings.Contains(string(events), "frozen 1")
	}
	state, err := os.ReadFile(filepath.Join(string(g), "freezer.state"))
	return err != nil || strings.TrimSpace(string(state)) == "FROZEN"
}
