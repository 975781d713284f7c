package main

import (
	"context"
	"sort"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a volume has where nothing is asked for.
const defaultCapacity = 1 << 30

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	calls := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if d.snapshots {
		calls = append(calls,
			csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
			csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	}
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, call := range calls {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: call}}})
	}
	return response, nil
}

func (d *driver) CreateVolume(_ context.Context, request *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	if len(request.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "capabilities must be given")
	}
	asked := volume{ID: request.Name, Capacity: request.GetCapacityRange().GetRequiredBytes()}
	if asked.Capacity == 0 {
		asked.Capacity = defaultCapacity
	}
	for _, capability := range request.VolumeCapabilities {
		asked.Block = asked.Block || capability.GetBlock() != nil
		asked.Format = capability.GetMount().GetFsType()
	}
	if asked.Format != "" && asked.Format != "ext4" {
		return nil, status.Errorf(codes.InvalidArgument, "volumes are ext4 or have no format, not %s", asked.Format)
	}

	// The content to begin with, and the volume that it was.
	var from string
	var source volume
	var found bool
	var err error
	switch id := request.GetVolumeContentSource(); {
	case id.GetSnapshot() != nil:
		var record snapshot
		asked.From = id.GetSnapshot().SnapshotId
		found, err = d.store.load("snapshots", asked.From, &record)
		from, source = d.store.content("snapshots", asked.From), record.Volume
		if found && err == nil && time.Since(record.Cut) < d.faults.wait("ready") {
			return nil, status.Errorf(codes.Unavailable, "the snapshot %s is not ready to use", asked.From)
		}
	case id.GetVolume() != nil:
		asked.From = id.GetVolume().VolumeId
		found, err = d.store.load("volumes", asked.From, &source)
		from = d.store.content("volumes", asked.From)
	}
	if err != nil {
		return nil, err
	}
	if asked.From != "" {
		if !found {
			return nil, status.Errorf(codes.NotFound, "there is no %s to begin with", asked.From)
		}
		if source.Block != asked.Block || source.Format != asked.Format {
			return nil, status.Errorf(codes.InvalidArgument, "%s and the new volume differ in mode or format", asked.From)
		}
		if source.Capacity > asked.Capacity {
			return nil, status.Errorf(codes.OutOfRange, "%s has %d bytes, the new volume only %d", asked.From, source.Capacity, asked.Capacity)
		}
	}

	var known volume
	if found, err = d.store.load("volumes", asked.ID, &known); err != nil {
		return nil, err
	}
	if found && (known.Block != asked.Block || known.Format != asked.Format || known.From != asked.From || known.Capacity < asked.Capacity) {
		return nil, status.Errorf(codes.AlreadyExists, "another volume has the name %s", asked.ID)
	}
	if !found {
		known = asked
		if err := d.store.fill(known, from); err != nil {
			return nil, err
		}
		if err := d.store.save("volumes", known.ID, known); err != nil {
			return nil, err
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: known.ID, CapacityBytes: known.Capacity, ContentSource: request.VolumeContentSource}}, nil
}

func (d *driver) DeleteVolume(_ context.Context, request *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	return &csi.DeleteVolumeResponse{}, d.store.forget("volumes", request.VolumeId)
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if _, err := d.volume(request.VolumeId); err != nil {
		return nil, err
	}
	if len(request.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "capabilities must be given")
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: request.VolumeCapabilities}}, nil
}

func (d *driver) ControllerExpandVolume(_ context.Context, request *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	known, err := d.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	known.Capacity = max(known.Capacity, request.GetCapacityRange().GetRequiredBytes())
	if known.Block || known.Format != "" {
		if err := enlarge(d.store.disk(known.ID), known.Capacity); err != nil {
			return nil, err
		}
	}
	if err := d.store.save("volumes", known.ID, known); err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: known.Capacity, NodeExpansionRequired: known.Block || known.Format != ""}, nil
}

// volume is the record of a volume that must be there.
func (d *driver) volume(id string) (volume, error) {
	var known volume
	found, err := d.store.load("volumes", id, &known)
	if err == nil && !found {
		err = status.Errorf(codes.NotFound, "there is no volume %s", id)
	}
	return known, err
}

func (d *driver) CreateSnapshot(_ context.Context, request *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	var known snapshot
	found, err := d.store.load("snapshots", request.Name, &known)
	if err != nil {
		return nil, err
	}
	if found && known.Volume.ID != request.SourceVolumeId {
		return nil, status.Errorf(codes.AlreadyExists, "the snapshot %s is of another volume", request.Name)
	}
	if !found {
		source, err := d.volume(request.SourceVolumeId)
		if err != nil {
			return nil, err
		}
		known = snapshot{ID: request.Name, Volume: source, Cut: time.Now()}
		if err := d.store.cut(source.ID, known.ID); err != nil {
			return nil, err
		}
		if err := d.store.save("snapshots", known.ID, known); err != nil {
			return nil, err
		}
	}
	return &csi.CreateSnapshotResponse{Snapshot: d.describe(known)}, nil
}

// describe says of a snapshot what callers are told.
func (d *driver) describe(s snapshot) *csi.Snapshot {
	return &csi.Snapshot{SnapshotId: s.ID, SourceVolumeId: s.Volume.ID, SizeBytes: s.Volume.Capacity, CreationTime: timestamppb.New(s.Cut),
		ReadyToUse: time.Since(s.Cut) >= d.faults.wait("ready"), GroupSnapshotId: s.Group}
}

func (d *driver) DeleteSnapshot(_ context.Context, request *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	var known snapshot
	found, err := d.store.load("snapshots", request.SnapshotId, &known)
	if err != nil {
		return nil, err
	}
	if found && known.Group != "" {
		return nil, status.Errorf(codes.InvalidArgument, "the snapshot %s goes with its group %s, never alone", known.ID, known.Group)
	}
	return &csi.DeleteSnapshotResponse{}, d.store.forget("snapshots", request.SnapshotId)
}

func (d *driver) ListSnapshots(_ context.Context, request *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	ids, err := d.store.list("snapshots")
	if err != nil {
		return nil, err
	}
	sort.Strings(ids)
	first := 0
	if request.StartingToken != "" {
		if first, err = strconv.Atoi(request.StartingToken); err != nil || first < 0 || first > len(ids) {
			return nil, status.Errorf(codes.Aborted, "%q is no token of this list", request.StartingToken)
		}
	}
	response := &csi.ListSnapshotsResponse{}
	for index, id := range ids[first:] {
		if request.SnapshotId != "" && request.SnapshotId != id {
			continue
		}
		var known snapshot
		// One that went while this list was made is not on it.
		if found, err := d.store.load("snapshots", id, &known); err != nil {
			return nil, err
		} else if !found || (request.SourceVolumeId != "" && request.SourceVolumeId != known.Volume.ID) {
			continue
		}
		if request.MaxEntries > 0 && len(response.Entries) == int(request.MaxEntries) {
			response.NextToken = strconv.Itoa(first + index)
			break
		}
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: d.describe(known)})
	}
	return response, nil
}
