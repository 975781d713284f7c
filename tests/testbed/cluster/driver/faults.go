package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faults are files in a folder, read at each call, so that a test plants and removes them at will:
//
//	METHOD.fail    "N [TEXT]": the next N calls fail, counted down in the file; with TEXT only calls whose request contains it
//	METHOD.wait    "SECONDS [TEXT]": each call waits so long before it does anything
//	ready.wait     "SECONDS": a snapshot becomes ready to use only so long after it was cut
//	group.wait     "SECONDS": so long passes between the cuts of a group's members, while their pods stand still
//
// METHOD is a call of CSI: CreateVolume, CreateSnapshot, CreateVolumeGroupSnapshot, NodePublishVolume and so on.
type faults struct {
	folder string
	mutex  sync.Mutex
}

func (f *faults) act(ctx context.Context, method string, request any) error {
	if seconds, text, planted := f.read(method + ".wait"); planted && strings.Contains(fmt.Sprint(request), text) {
		select {
		case <-time.After(time.Duration(seconds * float64(time.Second))):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	count, text, planted := f.read(method + ".fail")
	if !planted || count < 1 || !strings.Contains(fmt.Sprint(request), text) {
		return nil
	}
	// Replaced whole: a test that looks how many are left never reads half a number.
	file := filepath.Join(f.folder, method+".fail")
	if err := os.WriteFile(file+".new", []byte(strings.TrimSpace(fmt.Sprintf("%g %s", count-1, text))+"\n"), 0o644); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	return status.Errorf(codes.Internal, "planted fault of %s", method)
}

// wait is the time in one of the files that no call is named for: none where there is no file.
func (f *faults) wait(name string) time.Duration {
	seconds, _, _ := f.read(name + ".wait")
	return time.Duration(seconds * float64(time.Second))
}

func (f *faults) read(name string) (number float64, text string, planted bool) {
	content, err := os.ReadFile(filepath.Join(f.folder, name))
	if err != nil {
		return 0, "", false
	}
	first, rest, _ := strings.Cut(strings.TrimSpace(string(content)), " ")
	number, err = strconv.ParseFloat(first, 64)
	return number, strings.TrimSpace(rest), err == nil
}

// method is the last part of a call's full name.
func method(full string) string {
	return path.Base(full)
}
