package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
)

// engine asks the container engine of this machine through its socket. Some things
// are asked many times a second, and a docker command each time would disturb a small
// machine more than the faults do.
type engine struct {
	project string // of Compose
	client  *http.Client
}

// newEngine returns an engine whose project is not known yet. The engine has to be on
// this machine, where the processes are killed.
func newEngine() *engine {
	socket := strings.TrimPrefix(cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"), "unix://")
	return &engine{client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// findProject notes which project of Compose the current folder stands for.
func (e *engine) findProject(ctx context.Context) (err error) {
	id, err := output(ctx, "docker", "compose", "ps", "-q", "lb")
	if err != nil {
		return err
	}
	e.project, err = output(ctx, "docker", "inspect", "-f", `{{index .Config.Labels "com.docker.compose.project"}}`, id)
	return err
}

// get asks for one path of the engine's API and decodes the answer into v.
func (e *engine) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path, nil)
	if err != nil {
		return err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read-only
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the engine answers %s to %s", resp.Status, path)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// containers returns the ids of a service's running containers.
func (e *engine) containers(ctx context.Context, service string) ([]string, error) {
	filters, err := json.Marshal(map[string][]string{
		"status": {"running"},
		"label":  {"com.docker.compose.project=" + e.project, "com.docker.compose.service=" + service, "com.docker.compose.oneoff=False"},
	})
	if err != nil {
		return nil, err
	}
	var list []struct{ ID string }
	if err := e.get(ctx, "/containers/json?filters="+url.QueryEscape(string(filters)), &list); err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	if len(ids) == 0 {
		return nil, errors.New("no container of " + service + " is running")
	}
	return ids, nil
}

// container is the description of a container by the engine.
type container struct {
	State           struct{ Pid int }
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

func (e *engine) inspect(ctx context.Context, id string) (c container, err error) {
	err = e.get(ctx, "/containers/"+id+"/json", &c)
	return c, err
}

// pid returns the main process of a container, as this machine counts.
func (e *engine) pid(ctx context.Context, id string) (int, error) {
	c, err := e.inspect(ctx, id)
	if err == nil && c.State.Pid == 0 {
		err = errors.New("container " + id + " is not running")
	}
	return c.State.Pid, err
}

// ip returns a container's address in a network of the project.
func (e *engine) ip(ctx context.Context, id, network string) (string, error) {
	c, err := e.inspect(ctx, id)
	if err != nil {
		return "", err
	}
	address := c.NetworkSettings.Networks[e.project+"_"+network].IPAddress
	if address == "" {
		return "", fmt.Errorf("container %s has no address in %s", id, network)
	}
	return address, nil
}
