// Package check holds the manifests to the official types of Kubernetes and of the
// operators that they are written for, and to each other. It is a module of its
// own, so that Signpost does not depend on any of them.
package check

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cnpg "github.com/cloudnative-pg/cloudnative-pg/api/v1"
	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// program is signpost, which tells what it makes of a pod's environment.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "signpost-check-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system clears what is left
	program = filepath.Join(dir, "signpost")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, ".") // as make build does
	build.Dir = "../../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	m.Run()
}

// kinds are all that the manifests may hold.
var kinds = map[string]func() meta.Object{
	"v1/Namespace":                            func() meta.Object { return &core.Namespace{} },
	"v1/ConfigMap":                            func() meta.Object { return &core.ConfigMap{} },
	"v1/Secret":                               func() meta.Object { return &core.Secret{} },
	"v1/Service":                              func() meta.Object { return &core.Service{} },
	"apps/v1/StatefulSet":                     func() meta.Object { return &apps.StatefulSet{} },
	"apps/v1/Deployment":                      func() meta.Object { return &apps.Deployment{} },
	"batch/v1/Job":                            func() meta.Object { return &batch.Job{} },
	"autoscaling/v2/HorizontalPodAutoscaler":  func() meta.Object { return &autoscaling.HorizontalPodAutoscaler{} },
	"policy/v1/PodDisruptionBudget":           func() meta.Object { return &policy.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() meta.Object { return &networking.NetworkPolicy{} },
	"networking.k8s.io/v1/Ingress":            func() meta.Object { return &networking.Ingress{} },
	"postgresql.cnpg.io/v1/Cluster":           func() meta.Object { return &cnpg.Cluster{} },
	"postgresql.cnpg.io/v1/ScheduledBackup":   func() meta.Object { return &cnpg.ScheduledBackup{} },
	"keda.sh/v1alpha1/ScaledObject":           func() meta.Object { return &keda.ScaledObject{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() meta.Object { return &monitoring.ServiceMonitor{} },
	"monitoring.coreos.com/v1/PodMonitor":     func() meta.Object { return &monitoring.PodMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() meta.Object { return &monitoring.PrometheusRule{} },
}

// build makes what kubectl would apply, decoded; the examples of secrets stand
// for the secrets.
func build(t *testing.T, folder string) []meta.Object {
	t.Helper()
	files := filesys.MakeFsInMemory()
	for _, dir := range []string{"base", "example"} {
		entries, err := os.ReadDir(filepath.Join("..", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.IsDir() {
				continue
			}
			data, err := os.ReadFile(filepath.Join("..", dir, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(entry.Name(), ".example")
			if err := files.WriteFile(filepath.Join("/", dir, name), data); err != nil {
				t.Fatal(err)
			}
		}
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, folder)
	if err != nil {
		t.Fatalf("build %s: %v", folder, err)
	}
	var objects []meta.Object
	for _, resource := range made.Resources() {
		data, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, err := decode(data)
		if err != nil {
			t.Fatalf("%s: %v\n%s", resource.CurId(), err, data)
		}
		objects = append(objects, object)
	}
	return objects
}

// decode refuses what strictly refuses, and other kinds.
func decode(data []byte) (meta.Object, error) {
	var kind meta.TypeMeta
	if err := yaml.Unmarshal(data, &kind); err != nil {
		return nil, err
	}
	object, ok := kinds[kind.APIVersion+"/"+kind.Kind]
	if !ok {
		return nil, fmt.Errorf("%s/%s is none of the kinds that are checked", kind.APIVersion, kind.Kind)
	}
	into := object()
	return into, strictly(data, into)
}

// strictly reads YAML as the API server does when it is asked to be strict: it
// refuses fields that the type does not have, also those that differ in case only,
// and fields given twice. (UnmarshalStrict of sigs.k8s.io/yaml ignores case.)
func strictly(data []byte, into any) error {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return err
	}
	faults, err := kjson.UnmarshalStrict(asJSON, into)
	return errors.Join(append(faults, err)...)
}

// inBase are all objects of the base, and inExample what the example adds.
var (
	inBase = []string{
		"Cluster/signpost-postgres", "ConfigMap/signpost", "Deployment/signpost-redis", "Deployment/signpost-worker",
		"HorizontalPodAutoscaler/signpost-api", "Job/signpost-migrate", "Namespace/signpost",
		"NetworkPolicy/signpost-api", "NetworkPolicy/signpost-deny", "NetworkPolicy/signpost-migrate",
		"NetworkPolicy/signpost-postgres", "NetworkPolicy/signpost-redis", "NetworkPolicy/signpost-worker",
		"PodDisruptionBudget/signpost-api", "PodDisruptionBudget/signpost-worker", "PodMonitor/signpost-postgres",
		"PrometheusRule/signpost", "ScaledObject/signpost-worker", "ScheduledBackup/signpost-postgres-daily",
		"Service/signpost-api", "Service/signpost-api-pods", "Service/signpost-redis", "Service/signpost-worker",
		"ServiceMonitor/signpost", "StatefulSet/signpost-api",
	}
	inExample = []string{
		"Ingress/signpost", "NetworkPolicy/signpost-certificate",
		"Secret/signpost", "Secret/signpost-archive", "Secret/signpost-backup",
	}
)

// generated is what kustomize appends to the name of what it generates.
var generated = regexp.MustCompile("-[2456789bcdfghkmt]{10}$")

func TestManifestsDecodeStrictly(t *testing.T) {
	for folder, want := range map[string][]string{"/base": inBase, "/example": slices.Concat(inBase, inExample)} {
		var names []string
		for _, object := range build(t, folder) {
			kind := reflect.TypeOf(object).Elem().Name()
			names = append(names, kind+"/"+generated.ReplaceAllString(object.GetName(), ""))
			if _, ok := object.(*core.Namespace); !ok && object.GetNamespace() != "signpost" {
				t.Errorf("%T %s is in the namespace %q", object, object.GetName(), object.GetNamespace())
			}
		}
		slices.Sort(names)
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("%s holds\n%q, want\n%q", folder, names, want)
		}
	}
	for _, wrong := range []string{
		"apiVersion: v1\nkind: Service\nspec: {selectors: {a: b}}",
		"apiVersion: v1\nkind: Service\nspec: {Selector: {a: b}}",
		"apiVersion: v1\nkind: Service\nspec: {selector: {a: b}, selector: {a: c}}",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec: {minReplicas: 2}",
		"apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nspec: {instances: many}",
		"apiVersion: v1\nkind: Pod",
	} {
		if _, err := decode([]byte(wrong)); err == nil {
			t.Errorf("%q was accepted", wrong)
		}
	}
}

// pods are the templates that pods are made of, by workload, but for Postgres'.
func pods(t *testing.T, objects []meta.Object) map[string]core.PodTemplateSpec {
	t.Helper()
	found := map[string]core.PodTemplateSpec{}
	for _, object := range objects {
		switch o := object.(type) {
		case *apps.StatefulSet:
			found["StatefulSet/"+o.Name] = o.Spec.Template
		case *apps.Deployment:
			found["Deployment/"+o.Name] = o.Spec.Template
		case *batch.Job:
			found["Job/"+o.Name] = o.Spec.Template
		}
	}
	if len(found) != 4 {
		t.Fatalf("%d workloads, want api, worker, migrate and redis", len(found))
	}
	return found
}

func all[T meta.Object](objects []meta.Object) (of []T) {
	for _, object := range objects {
		if o, ok := object.(T); ok {
			of = append(of, o)
		}
	}
	return of
}

func TestPodsAreRestricted(t *testing.T) {
	for name, pod := range pods(t, build(t, "/example")) {
		s := pod.Spec.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil {
			t.Errorf("%s may run as root or without a seccomp profile", name)
		}
		if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
			t.Errorf("%s gets a token of the Kubernetes API", name)
		}
		for _, c := range pod.Spec.Containers {
			s := c.SecurityContext
			if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
				s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
				s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") {
				t.Errorf("%s: container %s has rights that it does not need", name, c.Name)
			}
			if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s: container %s has no limit of memory or asks for no processor", name, c.Name)
			}
			if c.Image == "signpost" {
				t.Errorf("%s: the example does not say where its image is", name)
			}
		}
	}
}

// TestEnvironment holds every variable to the reference of the configuration, and
// every reference to something that is there.
func TestEnvironment(t *testing.T) {
	reference, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"GOMEMLIMIT": true, "REDIS_PASSWORD": true}
	for _, match := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)`").FindAllSubmatch(reference, -1) {
		known[string(match[1])] = true
	}
	if len(known) < 30 {
		t.Fatalf("the reference has only %d variables", len(known))
	}
	objects := build(t, "/example")
	have := map[string]map[string]bool{
		"signpost-postgres-app": {"uri": true}, // made by CloudNativePG
	}
	for _, m := range all[*core.ConfigMap](objects) {
		have[m.Name] = map[string]bool{}
		for key := range m.Data {
			if !known[key] {
				t.Errorf("the config map sets %s, which is no variable", key)
			}
		}
	}
	for _, s := range all[*core.Secret](objects) {
		have[s.Name] = map[string]bool{}
		for key := range s.Data {
			have[s.Name][key] = true
		}
	}
	for name, pod := range pods(t, objects) {
		for _, c := range pod.Spec.Containers {
			for _, env := range c.Env {
				if !known[env.Name] {
					t.Errorf("%s sets %s, which is no variable", name, env.Name)
				}
				if env.ValueFrom != nil && !have[env.ValueFrom.SecretKeyRef.Name][env.ValueFrom.SecretKeyRef.Key] {
					t.Errorf("%s takes %s from %+v, which is not there", name, env.Name, env.ValueFrom.SecretKeyRef)
				}
			}
			for _, from := range c.EnvFrom {
				if from.ConfigMapRef != nil && have[from.ConfigMapRef.Name] == nil {
					t.Errorf("%s takes its environment from %s, which is not there", name, from.ConfigMapRef.Name)
				}
				if from.SecretRef == nil {
					continue
				}
				if have[from.SecretRef.Name] == nil {
					t.Errorf("%s takes its environment from %s, which is not there", name, from.SecretRef.Name)
				}
				for key := range have[from.SecretRef.Name] {
					if !known[key] {
						t.Errorf("%s gets %s from %s, which is no variable", name, key, from.SecretRef.Name)
					}
				}
			}
		}
	}
}

// TestReferences holds selectors, ports and targets to what they mean.
func TestReferences(t *testing.T) {
	objects := build(t, "/example")
	templates := pods(t, objects)
	selects := func(what string, selector map[string]string) (found []core.PodTemplateSpec) {
		for _, pod := range templates {
			if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
				found = append(found, pod)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s selects %d workloads", what, len(found))
		}
		return found
	}
	jobs := map[string]bool{}
	for _, service := range all[*core.Service](objects) {
		for _, pod := range selects("service "+service.Name, service.Spec.Selector) {
			for _, port := range service.Spec.Ports {
				if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(p core.ContainerPort) bool { return p.Name == port.TargetPort.StrVal }) {
					t.Errorf("service %s leads to the port %s, which is not there", service.Name, port.TargetPort.StrVal)
				}
			}
		}
		if job := service.Labels["signpost-job"]; job != "" {
			jobs[job] = true
		}
	}
	if want := map[string]bool{"signpost-api": true, "signpost-worker": true}; !reflect.DeepEqual(jobs, want) {
		t.Errorf("Prometheus finds the jobs %v, and the rules name %v", jobs, want)
	}
	for _, budget := range all[*policy.PodDisruptionBudget](objects) {
		selects("disruption budget "+budget.Name, budget.Spec.Selector.MatchLabels)
	}
	for _, p := range all[*networking.NetworkPolicy](objects) {
		if component := p.Spec.PodSelector.MatchLabels["app.kubernetes.io/component"]; component != "" {
			selects("network policy "+p.Name, p.Spec.PodSelector.MatchLabels)
		}
	}
	for _, ingress := range all[*networking.Ingress](objects) {
		name := ingress.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name
		if !slices.ContainsFunc(all[*core.Service](objects), func(s *core.Service) bool { return s.Name == name }) {
			t.Errorf("the ingress leads to the service %s, which is not there", name)
		}
	}
}

// TestAutoscalers holds that they scale what is there, and that nothing else sets
// the number of replicas: applying the manifests would set it back at the worst
// of times.
func TestAutoscalers(t *testing.T) {
	objects := build(t, "/example")
	replicas := map[string]*int32{}
	for _, o := range all[*apps.StatefulSet](objects) {
		replicas["StatefulSet/"+o.Name] = o.Spec.Replicas
	}
	for _, o := range all[*apps.Deployment](objects) {
		replicas["Deployment/"+o.Name] = o.Spec.Replicas
	}
	var targets []string
	for _, o := range all[*autoscaling.HorizontalPodAutoscaler](objects) {
		targets = append(targets, o.Spec.ScaleTargetRef.Kind+"/"+o.Spec.ScaleTargetRef.Name)
	}
	for _, o := range all[*keda.ScaledObject](objects) {
		targets = append(targets, o.Spec.ScaleTargetRef.Kind+"/"+o.Spec.ScaleTargetRef.Name)
	}
	if want := []string{"StatefulSet/signpost-api", "Deployment/signpost-worker"}; !slices.Equal(targets, want) {
		t.Errorf("%q are scaled, want %q", targets, want)
	}
	for _, target := range targets {
		if set, ok := replicas[target]; !ok || set != nil {
			t.Errorf("%s is scaled, and is not there or sets its replicas itself", target)
		}
	}
}

// TestNetworkPolicies holds that nothing is reached unless it is said, and that
// processes reach what they may need.
func TestNetworkPolicies(t *testing.T) {
	out := map[string][]string{}
	denied := false
	for _, p := range all[*networking.NetworkPolicy](build(t, "/example")) {
		if selector := p.Spec.PodSelector; len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
			denied = denied || len(p.Spec.Ingress) == 0 && slices.Contains(p.Spec.PolicyTypes, networking.PolicyTypeIngress)
			continue
		}
		component := p.Spec.PodSelector.MatchLabels["app.kubernetes.io/component"]
		if component == "" || !slices.Contains(p.Spec.PolicyTypes, networking.PolicyTypeEgress) {
			continue
		}
		out[component] = []string{}
		for _, rule := range p.Spec.Egress {
			for _, port := range rule.Ports {
				out[component] = append(out[component], port.Port.String())
			}
		}
		slices.Sort(out[component])
		out[component] = slices.Compact(out[component])
	}
	if !denied {
		t.Error("nothing denies what is not allowed")
	}
	want := map[string][]string{ // Postgres, Redis, names, traces, the archive
		"api":     {"4318", "443", "53", "5432", "6379"},
		"worker":  {"4318", "443", "53", "5432", "9000"},
		"migrate": {"53", "5432"},
		"redis":   {},
	}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("what pods may reach: %v, want %v", out, want)
	}
}

// TestProbes holds what decides that a pod starts, lives and gets requests.
func TestProbes(t *testing.T) {
	templates := pods(t, build(t, "/base"))
	for name, want := range map[string][3]string{ // startup, liveness, readiness
		"StatefulSet/signpost-api":   {"http/health", "http/health", "http/health"},
		"Deployment/signpost-worker": {"admin/health", "admin/health", "admin/ready"},
	} {
		c := templates[name].Spec.Containers[0]
		for i, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil {
				t.Errorf("%s lacks a probe, want %s", name, want[i])
				continue
			}
			port := probe.HTTPGet.Port.StrVal
			if got := port + probe.HTTPGet.Path; got != want[i] {
				t.Errorf("%s is asked at %s, want %s", name, got, want[i])
			}
			if !slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == port }) {
				t.Errorf("%s is asked at the port %s, which is not there", name, port)
			}
		}
	}
}

// environment is what the first container of a pod finds in it.
func environment(objects []meta.Object, pod core.PodTemplateSpec) []string {
	data := map[string]map[string]string{ // made by CloudNativePG
		"signpost-postgres-app": {"uri": "postgres://signpost:s3cret@signpost-postgres-rw.signpost:5432/signpost"},
	}
	for _, m := range all[*core.ConfigMap](objects) {
		data[m.Name] = m.Data
	}
	for _, s := range all[*core.Secret](objects) {
		data[s.Name] = map[string]string{}
		for key, value := range s.Data {
			data[s.Name][key] = string(value)
		}
	}
	values := map[string]string{}
	c := pod.Spec.Containers[0]
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			maps.Copy(values, data[from.ConfigMapRef.Name])
		}
		if from.SecretRef != nil {
			maps.Copy(values, data[from.SecretRef.Name])
		}
	}
	var list []string
	for _, env := range c.Env {
		value := env.Value
		for name, other := range values {
			value = strings.ReplaceAll(value, "$("+name+")", other)
		}
		if env.ValueFrom != nil {
			value = data[env.ValueFrom.SecretKeyRef.Name][env.ValueFrom.SecretKeyRef.Key]
		}
		values[env.Name] = value
	}
	for name, value := range values {
		list = append(list, name+"="+value)
	}
	return list
}

// configurations returns what is in force in api, worker and migrate, as the
// program itself reads it. It fails where the program would not start.
func configurations(t *testing.T, objects []meta.Object) map[string]map[string]string {
	t.Helper()
	found := map[string]map[string]string{}
	for name, pod := range pods(t, objects) {
		role := pod.Labels["app.kubernetes.io/component"]
		if role == "redis" {
			continue
		}
		config := exec.Command(program, "config")
		config.Env = environment(objects, pod)
		out, err := config.CombinedOutput()
		if err != nil {
			t.Errorf("%s would not start: %v\n%s", name, err, out)
		}
		found[role] = map[string]string{}
		for line := range strings.Lines(string(out)) {
			variable, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			found[role][variable] = value
		}
	}
	for _, role := range []string{"api", "worker", "migrate"} {
		if found[role]["DATABASE_URL"] == "" {
			t.Errorf("%s has no database", role)
		}
	}
	return found
}

// TestRetention retires months as docs/operations.md says.
func TestRetention(t *testing.T) {
	objects := build(t, "/example")
	for _, s := range all[*core.Secret](objects) {
		if generated.ReplaceAllString(s.Name, "") == "signpost-archive" {
			s.Data["EVENTS_RETENTION_MONTHS"] = []byte("12")
		}
	}
	config := configurations(t, objects)
	if w := config["worker"]; w["EVENTS_RETENTION_MONTHS"] != "12" || !strings.HasPrefix(w["EVENTS_ARCHIVE"], "s3://") || w["AWS_SECRET_ACCESS_KEY"] == "" {
		t.Errorf("workers have EVENTS_RETENTION_MONTHS=%s, EVENTS_ARCHIVE=%s", w["EVENTS_RETENTION_MONTHS"], w["EVENTS_ARCHIVE"])
	}
	for _, role := range []string{"api", "migrate"} {
		if c := config[role]; c["EVENTS_RETENTION_MONTHS"] != "0" || c["EVENTS_ARCHIVE"] != "" || c["AWS_SECRET_ACCESS_KEY"] != "" {
			t.Errorf("%s has the archive, which is the workers'", role)
		}
	}
}

// TestConnectionBudget holds what all processes may open together to what
// Postgres takes.
func TestConnectionBudget(t *testing.T) {
	objects := build(t, "/example")
	config := configurations(t, objects)
	open, scalers := 0, 0
	processes := func(role string, n int32) {
		pool, err := strconv.Atoi(config[role]["DB_MAX_CONNS"])
		if err != nil {
			t.Fatalf("DB_MAX_CONNS of %s: %v", role, err)
		}
		open += int(n) * (pool + 1) // docs/scaling.md, Connections
	}
	for _, scaler := range all[*autoscaling.HorizontalPodAutoscaler](objects) {
		processes("api", scaler.Spec.MaxReplicas)
		scalers++
	}
	for _, scaler := range all[*keda.ScaledObject](objects) {
		processes("worker", *scaler.Spec.MaxReplicaCount+1) // one more while they are rolled
		scalers++
	}
	clusters := all[*cnpg.Cluster](objects)
	if scalers != 2 || len(clusters) != 1 {
		t.Fatalf("%d autoscalers and %d clusters of Postgres, want 2 and 1", scalers, len(clusters))
	}
	most, err := strconv.Atoi(clusters[0].Spec.PostgresConfiguration.Parameters["max_connections"])
	if err != nil || open+20 > most {
		t.Errorf("all processes may open %d connections, Postgres takes %d: %v", open, most, err)
	}
}

// TestGracefulEnd gives every process the time that it takes to stop.
func TestGracefulEnd(t *testing.T) {
	objects := build(t, "/example")
	config := configurations(t, objects)
	templates := pods(t, objects)
	for name, role := range map[string]string{"StatefulSet/signpost-api": "api", "Deployment/signpost-worker": "worker"} {
		pod := templates[name].Spec
		takes, err := time.ParseDuration(config[role]["SHUTDOWN_TIMEOUT"])
		if err != nil {
			t.Fatalf("SHUTDOWN_TIMEOUT of %s: %v", role, err)
		}
		if hook := pod.Containers[0].Lifecycle; hook != nil {
			takes += time.Duration(hook.PreStop.Sleep.Seconds) * time.Second
		} else if role == "api" {
			t.Error("an api ends while proxies still send requests to it")
		}
		if pod.TerminationGracePeriodSeconds == nil {
			t.Fatalf("%s does not say how long it takes to stop", name)
		}
		if given := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; given <= takes {
			t.Errorf("%s is killed after %s and may take %s to stop", name, given, takes)
		}
	}
}

// TestRules holds the rules to those that Prometheus has elsewhere.
func TestRules(t *testing.T) {
	var want []monitoring.RuleGroup
	for _, name := range []string{"recording.yml", "alerts.yml", "../kubernetes/alerts.yml"} {
		data, err := os.ReadFile(filepath.Join("../../prometheus/rules", name))
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Groups []monitoring.RuleGroup `json:"groups"`
		}
		if err := strictly(data, &file); err != nil {
			t.Fatal(err)
		}
		want = append(want, file.Groups...)
	}
	rules := all[*monitoring.PrometheusRule](build(t, "/base"))
	if len(rules) != 1 || len(want) == 0 {
		t.Fatalf("%d objects with rules, %d groups in the files", len(rules), len(want))
	}
	if !reflect.DeepEqual(rules[0].Spec.Groups, want) {
		got, _ := yaml.Marshal(rules[0].Spec.Groups)
		files, _ := yaml.Marshal(want)
		t.Errorf("the rules differ from deploy/prometheus/rules: run make generate\n%s", firstDifference(got, files))
	}
}

func firstDifference(a, b []byte) string {
	for i, line := range bytes.Split(a, []byte("\n")) {
		if other := bytes.Split(b, []byte("\n")); i >= len(other) || !bytes.Equal(line, other[i]) {
			return fmt.Sprintf("line %d: %s", i+1, line)
		}
	}
	return ""
}
