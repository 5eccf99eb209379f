// A driver of kvblockd by its Go client: says what driver.py says. Compiled by ./dev within kvblockd's
// source, as its client's module wants it.
//
// usage: kvblockd_peer PROGRAM, the daemon's
package main

// #include <stdint.h>
// uint64_t kvasir_sum_words(const uint64_t* from, unsigned long words);
import "C"

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/kvstash/kvblockd/internal/protocol"
	"github.com/kvstash/kvblockd/pkg/client"
)

const (
	mib                         = 1 << 20
	layers, blocks, smallBlocks = 32, 256, 192
	slice                       = 64 << 10
	block, small                = layers * slice, 4 * slice
	prefix                      = blocks * block
	prefixSeed, smallSeed       = 1, 2
	streams                     = 2
	blob                        = 2 * mib // of the prompt's values
	arenaBytes                  = 1792 * mib
	namespace, token            = "demo", "demo-token"
)

func words(size int, seed uint64) []byte {
	made := make([]byte, size)
	for at := 0; at < size; at += 8 {
		binary.LittleEndian.PutUint64(made[at:], (uint64(at)+seed)*0x9e3779b97f4a7c15)
	}
	return made
}

func sumOf(bytes []byte) uint64 {
	return uint64(C.kvasir_sum_words((*C.uint64_t)(unsafe.Pointer(&bytes[0])), C.ulong(len(bytes)/8)))
}

func keyOf(name string, number int) (key [32]byte) {
	copy(key[:], fmt.Sprintf("%s:%d", name, number))
	return key
}

func keysOf(name string, count int) [][32]byte {
	keys := make([][32]byte, count)
	for i := range keys {
		keys[i] = keyOf(name, i)
	}
	return keys
}

type peer struct {
	client         *client.Client
	prompt, smalls []byte // what is stored
	into           []byte // what was fetched
}

// In parallel, one stream each; the first error.
func each(count int, work func(i int) error) error {
	var group sync.WaitGroup
	errors := make(chan error, streams)
	for stream := 0; stream < streams; stream++ {
		group.Add(1)
		go func(stream int) {
			defer group.Done()
			for i := stream; i < count; i += streams {
				if err := work(i); err != nil {
					errors <- err
					return
				}
			}
		}(stream)
	}
	group.Wait()
	close(errors)
	return <-errors
}

func (p *peer) put(name string, from []byte, size int) error {
	return each(len(from)/size, func(i int) error {
		return p.client.Put(context.Background(), keyOf(name, i), from[i*size:(i+1)*size])
	})
}

// Each stream fetches a run of values at once, and reads them.
func (p *peer) get(keys [][32]byte, size int) (uint64, error) {
	runs := min(streams, len(keys))
	sums := make([]uint64, runs)
	err := each(runs, func(run int) error {
		first, last := run*len(keys)/runs, (run+1)*len(keys)/runs
		into := make([][]byte, last-first)
		for i := range into {
			into[i] = p.into[(first+i)*size : (first+i+1)*size]
		}
		statuses, err := p.client.BatchGet(context.Background(), keys[first:last], into)
		if err != nil {
			return err
		}
		for _, status := range statuses {
			if status != protocol.StatusOK {
				return fmt.Errorf("not there: status=%v", status)
			}
		}
		sums[run] = sumOf(p.into[first*size : last*size])
		return nil
	})
	total := uint64(0)
	for _, sum := range sums {
		total += sum
	}
	return total, err
}

func timed(call func() (uint64, error)) (float64, uint64, error) {
	start := time.Now()
	sum, err := call()
	return float64(time.Since(start).Nanoseconds()) / 1e6, sum, err
}

func (p *peer) answer(verb string, number int) (float64, uint64, error) {
	switch verb {
	case "prefix":
		keys := keysOf("prompt", prefix/blob)
		return timed(func() (uint64, error) { return p.get(keys, blob) })
	case "layer":
		keys := keysOf(fmt.Sprintf("layer%d", number), blocks)
		return timed(func() (uint64, error) { return p.get(keys, slice) })
	case "small":
		keys := [][32]byte{keyOf("small", number)}
		return timed(func() (uint64, error) { return p.get(keys, small) })
	case "look":
		keys := [][32]byte{keyOf("small", number)}
		return timed(func() (uint64, error) {
			found, _, err := p.client.BatchExists(context.Background(), keys)
			if err == nil && found != 1 {
				err = fmt.Errorf("not there: block=%d", number)
			}
			return 0, err
		})
	case "store":
		took, _, err := timed(func() (uint64, error) { return 0, p.put("stored", p.prompt, blob) })
		if err != nil {
			return 0, 0, err
		}
		keys := keysOf("stored", prefix/blob)
		sum, err := p.get(keys, blob)
		if err == nil {
			_, err = p.client.Delete(context.Background(), keys, true)
		}
		return took, sum, err
	}
	return 0, 0, errNotHere
}

var errNotHere = fmt.Errorf("no")

func (p *peer) fill() error {
	p.prompt, p.smalls, p.into = words(prefix, prefixSeed), words(smallBlocks*small, smallSeed), words(prefix, 0)
	if err := p.put("prompt", p.prompt, blob); err != nil {
		return err
	}
	if err := p.put("small", p.smalls, small); err != nil {
		return err
	}
	rows := make([]byte, blocks*slice)
	for layer := 0; layer < layers; layer++ {
		for i := 0; i < blocks; i++ {
			copy(rows[i*slice:(i+1)*slice], p.prompt[i*block+layer*slice:])
		}
		if err := p.put(fmt.Sprintf("layer%d", layer), rows, slice); err != nil {
			return err
		}
	}
	return nil
}

func freePort() (int, error) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer probe.Close()
	return probe.Addr().(*net.TCPAddr).Port, nil
}

// The daemon, which ends with this process.
func start(program, folder string) (*exec.Cmd, string, error) {
	var ports [3]int
	for i := range ports {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		ports[i] = port
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	config := fmt.Sprintf("listen_addr: \"%s\"\nadmin_addr: \"127.0.0.1:%d\"\nmetrics_addr: \"127.0.0.1:%d\"\n"+
		"dram_arena_bytes: %d\nnamespaces_path: \"%s/namespaces.yaml\"\n", address, ports[1], ports[2], arenaBytes, folder)
	tenants := fmt.Sprintf("namespaces:\n  - { name: %s, id: 1, token: \"%s\" }\n", namespace, token)
	if err := os.WriteFile(filepath.Join(folder, "kvblockd.yaml"), []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(folder, "namespaces.yaml"), []byte(tenants), 0o600); err != nil {
		return nil, "", err
	}
	daemon := exec.Command(program, "--config", filepath.Join(folder, "kvblockd.yaml"))
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, "", err
	}
	daemon.Stdout, daemon.Stderr = log, log
	return daemon, address, daemon.Start()
}

func run(out *bufio.Writer, folder string) error {
	daemon, address, err := start(os.Args[1], folder)
	if err != nil {
		return err
	}
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	peer := &peer{}
	// It touches its arena before it listens.
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		peer.client, err = client.Dial(context.Background(), address,
			client.Options{Streams: streams, Namespace: namespace, Token: token, SockRcvBuf: 16 * mib})
		if err == nil {
			break
		}
		if time.Now().After(until) {
			log, _ := os.ReadFile(filepath.Join(folder, "log"))
			return fmt.Errorf("kvblockd does not serve: %w %s", err, log)
		}
	}
	defer peer.client.Close()
	if err := peer.fill(); err != nil {
		return err
	}
	fmt.Fprintln(out, "ready client=Go, TCP of 2 streams, checksums verified")
	out.Flush()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, mib)
	for lines.Scan() {
		said := strings.Fields(lines.Text())
		numbers := said[1:]
		if len(numbers) == 0 {
			numbers = []string{"0"}
		}
		text := "ok"
		for _, number := range numbers {
			value, _ := strconv.Atoi(number)
			took, sum, err := peer.answer(said[0], value)
			if err == errNotHere {
				text = "no"
				break
			}
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %.6f:%d", took, sum)
		}
		fmt.Fprintln(out, text)
		out.Flush()
	}
	return nil
}

func main() {
	// An interrupt is for bench_peers, which then closes our input.
	signal.Ignore(os.Interrupt)
	out := bufio.NewWriter(os.Stdout)
	folder, err := os.MkdirTemp("", "kvasir-peer-")
	if err == nil {
		err = run(out, folder)
		_ = os.RemoveAll(folder)
	}
	if err != nil {
		fmt.Fprintln(out, "error", strings.Join(strings.Fields(err.Error()), " "))
	}
	out.Flush()
}
