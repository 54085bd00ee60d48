// Package check holds the manifests to the official types of Kubernetes and of the
// operators that they are written for, and to each other. It is a module of its
// own, so that Signpost does not depend on any of them.
package check

import (
	"bytes"
	"fmt"
	"os"
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
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

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

// decode refuses fields that the type does not have, and fields given twice.
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
	return into, yaml.UnmarshalStrict(data, into)
}

func TestManifestsDecodeStrictly(t *testing.T) {
	for _, folder := range []string{"/base", "/example"} {
		objects := build(t, folder)
		if len(objects) < 20 {
			t.Errorf("%s holds only %d objects", folder, len(objects))
		}
		for _, object := range objects {
			if _, ok := object.(*core.Namespace); !ok && object.GetNamespace() != "signpost" {
				t.Errorf("%T %s is in the namespace %q", object, object.GetName(), object.GetNamespace())
			}
		}
	}
	for _, wrong := range []string{
		"apiVersion: v1\nkind: Service\nspec: {selectors: {a: b}}",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec: {minReplicas: 2}",
		"apiVersion: postgresql.cnpg.io/v1\nkind: Cluster\nspec: {instances: many}",
		"apiVersion: v1\nkind: Pod",
	} {
		if _, err := decode([]byte(wrong)); err == nil {
			t.Errorf("%q was accepted", wrong)
		}
	}
}

// pods are the templates that pods of Signpost's own are made of, by workload.
func pods(objects []meta.Object) map[string]core.PodTemplateSpec {
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
	for name, pod := range pods(build(t, "/example")) {
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
	for name, pod := range pods(objects) {
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
			}
		}
	}
}

// TestReferences holds selectors, ports and targets to what they mean.
func TestReferences(t *testing.T) {
	objects := build(t, "/example")
	templates := pods(objects)
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
	for _, scaler := range all[*autoscaling.HorizontalPodAutoscaler](objects) {
		target := scaler.Spec.ScaleTargetRef
		if _, ok := templates[target.Kind+"/"+target.Name]; !ok {
			t.Errorf("autoscaler %s scales %s %s, which is not there", scaler.Name, target.Kind, target.Name)
		}
	}
	for _, scaler := range all[*keda.ScaledObject](objects) {
		target := scaler.Spec.ScaleTargetRef
		if _, ok := templates[target.Kind+"/"+target.Name]; !ok {
			t.Errorf("scaled object %s scales %s %s, which is not there", scaler.Name, target.Kind, target.Name)
		}
	}
	for _, ingress := range all[*networking.Ingress](objects) {
		name := ingress.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name
		if !slices.ContainsFunc(all[*core.Service](objects), func(s *core.Service) bool { return s.Name == name }) {
			t.Errorf("the ingress leads to the service %s, which is not there", name)
		}
	}
}

// TestConnectionBudget holds what all processes may open together to what
// Postgres takes.
func TestConnectionBudget(t *testing.T) {
	objects := build(t, "/example")
	const eachProcess = 10 // DB_MAX_CONNS
	processes := 1         // migrate
	for _, scaler := range all[*autoscaling.HorizontalPodAutoscaler](objects) {
		processes += int(scaler.Spec.MaxReplicas)
	}
	for _, scaler := range all[*keda.ScaledObject](objects) {
		processes += int(*scaler.Spec.MaxReplicaCount)
	}
	for _, cluster := range all[*cnpg.Cluster](objects) {
		most, err := strconv.Atoi(cluster.Spec.PostgresConfiguration.Parameters["max_connections"])
		if err != nil || processes*eachProcess+20 > most {
			t.Errorf("%d processes may open %d connections, Postgres takes %d", processes, processes*eachProcess, most)
		}
	}
}

// TestGracefulEnd gives every process the time that it takes to stop.
func TestGracefulEnd(t *testing.T) {
	for name, pod := range pods(build(t, "/base")) {
		for _, c := range pod.Spec.Containers {
			for _, env := range c.Env {
				if env.Name != "SHUTDOWN_TIMEOUT" {
					continue
				}
				timeout, err := time.ParseDuration(env.Value)
				if err != nil {
					t.Fatal(err)
				}
				if c.Lifecycle != nil {
					timeout += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
				}
				if given := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; given <= timeout {
					t.Errorf("%s is killed after %s and may take %s to stop", name, given, timeout)
				}
			}
		}
	}
}

// TestRules holds the rules to those that Prometheus has elsewhere.
func TestRules(t *testing.T) {
	var want []monitoring.RuleGroup
	for _, name := range []string{"recording.yml", "alerts.yml"} {
		data, err := os.ReadFile(filepath.Join("../../prometheus/rules", name))
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Groups []monitoring.RuleGroup `json:"groups"`
		}
		if err := yaml.UnmarshalStrict(data, &file); err != nil {
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
