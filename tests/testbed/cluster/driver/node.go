package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, call := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: call}}})
	}
	return response, nil
}

// NodePublishVolume mounts a volume where the pod expects it: the subvolume itself, what is mounted from its file, or its loop device.
func (d *driver) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	if request.TargetPath == "" || request.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "a target path and a capability must be given")
	}
	known, err := d.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	if known.Block != (request.GetVolumeCapability().GetBlock() != nil) {
		return nil, status.Errorf(codes.InvalidArgument, "the volume %s is of the other mode", known.ID)
	}
	target := request.TargetPath
	if mounted, err := mounts(at(target)); err != nil || len(mounted) > 0 {
		return &csi.NodePublishVolumeResponse{}, err
	}
	// The access mode ReadWriteOncePod: no second place while there is a first.
	if request.VolumeCapability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		if others, err := d.places(known.ID); err != nil {
			return nil, err
		} else if len(others) > 0 {
			return nil, status.Errorf(codes.FailedPrecondition, "the volume %s is for one pod only, and one has it", known.ID)
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return nil, err
	}
	source := d.store.content("volumes", known.ID)
	if known.Format != "" {
		if source, err = d.mountDisk(known); err != nil {
			return nil, err
		}
	}
	if known.Block {
		if source, err = attach(d.store.disk(known.ID), request.Readonly); err != nil {
			return nil, err
		}
		err = os.WriteFile(target, nil, 0o600)
	} else if err = os.Mkdir(target, 0o750); errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount of %s on %s: %w", source, target, err)
	}
	if request.Readonly && !known.Block {
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return nil, errors.Join(err, unix.Unmount(target, 0))
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *driver) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	target := request.TargetPath
	if target == "" || request.VolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume and a target path must be given")
	}
	here, err := mounts(at(target))
	if err != nil {
		return nil, err
	}
	for range here {
		if err := unix.Unmount(target, 0); err != nil {
			return nil, fmt.Errorf("unmount of %s: %w", target, err)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// What was mounted from a file goes with its last place, and its loop device with it; the volume may have been deleted before.
	if err := d.unmountDisk(request.VolumeId); err != nil {
		return nil, err
	}
	// A device that nobody has any more goes; one that somebody still reads goes with its last reader.
	for _, gone := range here {
		if !strings.HasPrefix(gone.root, "/loop") {
			continue
		}
		if others, err := mounts(func(other mount) bool { return other.root == gone.root }); err != nil {
			return nil, err
		} else if len(others) == 0 {
			if err := run("losetup", "--detach", "/dev"+gone.root); err != nil {
				return nil, err
			}
		}
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// mountDisk mounts what is in a volume's file, once for all pods, after it was made as large as the file. Mounted read-write: a copy of a
// file system in use has a journal to replay.
func (d *driver) mountDisk(v volume) (string, error) {
	point, disk := d.store.content("mounts", v.ID), d.store.disk(v.ID)
	if here, err := mounts(at(point)); err != nil || len(here) > 0 {
		return point, err
	}
	if err := os.MkdirAll(point, 0o700); err != nil {
		return "", err
	}
	if smaller, err := smallerThanFile(disk); err != nil {
		return "", err
	} else if smaller {
		// It asks for a check first, which ends with 1 where it mended something, such as by the journal.
		if _, err := output("e2fsck", "-f", "-y", disk); err != nil && exitCode(err) != 1 {
			return "", err
		}
		if err := run("resize2fs", disk); err != nil {
			return "", err
		}
	}
	return point, run("mount", "-t", v.Format, "-o", "loop", disk, point)
}

// unmountDisk undoes it where no pod has it any more.
func (d *driver) unmountDisk(id string) error {
	point := d.store.content("mounts", id)
	if here, err := mounts(at(point)); err != nil || len(here) == 0 {
		return err
	}
	if others, err := d.places(id); err != nil || len(others) > 0 {
		return err
	}
	if err := unix.Unmount(point, 0); err != nil {
		return fmt.Errorf("unmount of %s: %w", point, err)
	}
	return os.Remove(point)
}

// places are where pods have a volume mounted.
func (d *driver) places(id string) ([]mount, error) {
	has, err := d.has(id)
	if err != nil {
		return nil, err
	}
	point := d.store.content("mounts", id)
	return mounts(func(m mount) bool { return has(m) && m.point != point })
}

// has tells of a mount, in whatever process's view, whether it is of this volume: of its subvolume, or of what is mounted from its file.
func (d *driver) has(id string) (func(mount) bool, error) {
	disk, err := mounts(at(d.store.content("mounts", id)))
	content := "/volumes/" + id
	return func(m mount) bool {
		return strings.HasSuffix(m.root, content) || strings.Contains(m.root, content+"/") || (len(disk) > 0 && m.device == disk[0].device)
	}, err
}

// NodeExpandVolume makes known that a volume's file has grown.
func (d *driver) NodeExpandVolume(_ context.Context, request *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	d.store.mutex.Lock()
	defer d.store.mutex.Unlock()
	if request.VolumePath == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume path must be given")
	}
	known, err := d.volume(request.VolumeId)
	if err != nil {
		return nil, err
	}
	disk := d.store.disk(known.ID)
	devices, err := attached(disk)
	if err != nil {
		return nil, err
	}
	for device := range devices {
		if err := run("losetup", "--set-capacity", device); err != nil {
			return nil, err
		}
		// While it is mounted the kernel allows it to a process with CAP_SYS_RESOURCE only. Without, it grows with the next mount.
		if known.Format == "" {
			continue
		} else if smaller, err := smallerThanFile(disk); err != nil {
			return nil, err
		} else if smaller {
			if err := run("resize2fs", device); err != nil {
				return nil, err
			}
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: known.Capacity}, nil
}

// smallerThanFile tells of an ext4 in a file whether the file has room for more, by the superblock.
func smallerThanFile(file string) (bool, error) {
	handle, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer handle.Close()
	meta, err := handle.Stat()
	if err != nil {
		return false, err
	}
	super := make([]byte, 28)
	if _, err := handle.ReadAt(super, 1024); err != nil {
		return false, err
	}
	blocks, shift := int64(binary.LittleEndian.Uint32(super[4:])), binary.LittleEndian.Uint32(super[24:])+10
	return blocks+1 <= meta.Size()>>shift, nil
}

// attach gives a file a loop device, the one that it has where that fits.
func attach(file string, readonly bool) (string, error) {
	devices, err := attached(file)
	if err != nil {
		return "", err
	}
	for device, only := range devices {
		if only == readonly {
			return device, nil
		}
	}
	options := []string{"--find", "--show"}
	if readonly {
		options = append(options, "--read-only")
	}
	return output("losetup", append(options, file)...)
}

// attached are the loop devices of a file, and whether each is read-only.
func attached(file string) (map[string]bool, error) {
	said, err := output("losetup", "--list", "--noheadings", "--output", "NAME,RO", "--associated", file)
	devices := map[string]bool{}
	for line := range strings.Lines(said) {
		if fields := strings.Fields(line); len(fields) == 2 {
			devices[fields[0]] = fields[1] == "1"
		}
	}
	return devices, err
}

// mount is one line of what a process has mounted: the device as major:minor, the root inside its file system, and where it is.
type mount struct {
	device, root, point string
}

func at(point string) func(mount) bool {
	return func(m mount) bool { return m.point == point }
}

// mounts are those of this process that pass.
func mounts(pass func(mount) bool) ([]mount, error) {
	return mountsOf("self", pass)
}

func mountsOf(process string, pass func(mount) bool) ([]mount, error) {
	file, err := os.Open(filepath.Join("/proc", process, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var passed []mount
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// ID, parent, device, root, mount point, …
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if m := (mount{fields[2], fields[3], fields[4]}); pass(m) {
			passed = append(passed, m)
		}
	}
	return passed, lines.Err()
}
