package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// volume is what is known of a volume besides its content.
type volume struct {
	ID       string `json:"id"`
	Capacity int64  `json:"capacity"`
	// Block volumes are one file inside their subvolume, attached as a loop device.
	Block bool `json:"block"`
	// Format is a file system inside such a file, mounted for the pod. Without one the pod gets the subvolume itself.
	Format string `json:"format,omitempty"`
	// From is the snapshot or volume whose content it began with.
	From string `json:"from,omitempty"`
}

// snapshot is what is known of a snapshot besides its content.
type snapshot struct {
	ID     string    `json:"id"`
	Volume volume    `json:"volume"`
	Cut    time.Time `json:"cut"`
	Group  string    `json:"group,omitempty"`
}

// group is a set of snapshots cut at one instant.
type group struct {
	ID        string    `json:"id"`
	Cut       time.Time `json:"cut"`
	Snapshots []string  `json:"snapshots"`
}

// store is the folder that holds them: content in volumes/ID and snapshots/ID, records as JSON in records/KIND/ID. A record is written
// after its content is whole and removed before the content goes, so that what has a record is whole even after a kill.
type store struct {
	root string
	// One change at a time.
	mutex sync.Mutex
}

func openStore(root string) (*store, error) {
	for _, folder := range []string{"volumes", "snapshots", "mounts", "records/volumes", "records/snapshots", "records/groups"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o711); err != nil {
			return nil, err
		}
	}
	return &store{root: root}, nil
}

func (s *store) content(kind, id string) string {
	return filepath.Join(s.root, kind, id)
}

// disk is the file of a volume that is one.
func (s *store) disk(id string) string {
	return filepath.Join(s.content("volumes", id), "disk")
}

// checkID keeps names, which become names of files, inside their folder.
func checkID(id string) error {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return status.Errorf(codes.InvalidArgument, "%q is no name", id)
	}
	return nil
}

// load reads a record; found is false where there is none.
func (s *store) load(kind, id string, record any) (found bool, err error) {
	if err := checkID(id); err != nil {
		return false, err
	}
	content, err := os.ReadFile(filepath.Join(s.root, "records", kind, id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(content, record)
}

func (s *store) save(kind, id string, record any) error {
	content, err := json.Marshal(record)
	if err != nil {
		return err
	}
	file := filepath.Join(s.root, "records", kind, id)
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// forget removes record and content; what is gone already is no error.
func (s *store) forget(kind, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.root, "records", kind, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.discard(kind, id)
}

// discard removes content, which has no record, or none any more.
func (s *store) discard(kind, id string) error {
	if _, err := os.Lstat(s.content(kind, id)); kind == "groups" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return run("btrfs", "subvolume", "delete", s.content(kind, id))
}

func (s *store) list(kind string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "records", kind))
	var ids []string
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".new") {
			ids = append(ids, entry.Name())
		}
	}
	return ids, err
}

// fill makes a volume's content: empty, or what another subvolume holds.
func (s *store) fill(v volume, from string) error {
	if err := s.discard("volumes", v.ID); err != nil {
		return err
	}
	target := s.content("volumes", v.ID)
	if from != "" {
		if err := run("btrfs", "subvolume", "snapshot", from, target); err != nil {
			return err
		}
	} else if err := run("btrfs", "subvolume", "create", target); err != nil {
		return err
	}
	if !v.Block && v.Format == "" {
		return nil
	}
	if err := enlarge(s.disk(v.ID), v.Capacity); err != nil || v.Format == "" || from != "" {
		return err
	}
	return run("mkfs."+v.Format, "-q", s.disk(v.ID))
}

// cut makes a snapshot's content.
func (s *store) cut(volume, id string) error {
	if err := s.discard("snapshots", id); err != nil {
		return err
	}
	return run("btrfs", "subvolume", "snapshot", "-r", s.content("volumes", volume), s.content("snapshots", id))
}

// enlarge lets a volume's file be at least so long, without taking space.
func enlarge(file string, size int64) error {
	handle, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer handle.Close()
	meta, err := handle.Stat()
	if err != nil || meta.Size() >= size {
		return err
	}
	return handle.Truncate(size)
}

func run(name string, arguments ...string) error {
	_, err := output(name, arguments...)
	return err
}

func output(name string, arguments ...string) (string, error) {
	said, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(said)))
	}
	return strings.TrimSpace(string(said)), nil
}

// exitCode is a program's, or -1 where it was not that which failed.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
