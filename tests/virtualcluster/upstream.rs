//! A stand-in for VirtualCluster's repository: its layout, its module, the lines that the patches touch at the
//! lines where they are, and around them small programs of our own, which need nothing but Go.

use std::path::PathBuf;

use crate::support::repository::Repository;

const MODULE: &str = "sigs.k8s.io/cluster-api-provider-nested/virtualcluster";

/// Makes the repository.
pub fn repository(path: PathBuf) -> Repository {
    let files = [
        ("go.mod", format!("module {MODULE}\n\ngo 1.16\n")),
        ("go.sum", String::new()),
        ("pkg/version/version.go", VERSION.into()),
        ("pkg/syncer/util/featuregate/gate.go", GATE.into()),
        ("pkg/apis/tenancy/v1alpha1/virtualcluster_types.go", at(&TYPES)),
        ("pkg/controller/controllers/provisioner/provisioner_native.go", at(&PROVISIONER)),
        ("pkg/controller/kubeconfig/kubeconfig.go", at(&KUBECONFIG)),
        ("pkg/syncer/conversion/mutate.go", at(&MUTATE)),
        ("pkg/syncer/conversion/mutate_test.go", "package conversion\n\nthis does not compile\n".into()),
        ("cmd/vn-agent/app/options/options.go", at(&OPTIONS)),
        ("cmd/manager/main.go", main(&MANAGER, MANAGER_SAYS)),
        ("cmd/syncer/main.go", main(&SYNCER, SYNCER_SAYS)),
        ("cmd/vn-agent/main.go", main(&VN_AGENT, VN_AGENT_SAYS)),
        ("cmd/kubectl-vc/main.go", main(&PLUGIN, PLUGIN_SAYS)),
    ];
    let repository = Repository::new(path);
    for (name, text) in files {
        repository.write(&format!("virtualcluster/{name}"), text);
    }
    repository.commit("a stand-in", &[("README.md", "a stand-in\n")]);
    repository
}

/// A text with pieces that begin at given lines, and comments between them.
fn at(pieces: &[(usize, &str)]) -> String {
    let mut text = String::new();
    for (line, piece) in pieces {
        let written = text.lines().count() + 1;
        assert!(written <= *line, "a piece begins at line {line}, after line {written}");
        text.push_str(&"//\n".repeat(line - written));
        text.push_str(piece);
    }
    text
}

fn main(packages: &[&str], says: &str) -> String {
    let imports: String = packages.iter().map(|package| format!("\t\"{MODULE}/{package}\"\n")).collect();
    format!(
        "package main\n\nimport (\n\t\"fmt\"\n\n{imports})\n\nfunc main() {{\n\t_ = featuregate.Default\n{says}}}\n"
    )
}

const VERSION: &str = r#"package version

var (
	gitVersion = "v0.0.0"
	gitCommit  = "unknown"
	buildDate  = "never"
)

// Line says all three.
func Line() string { return gitVersion + "-" + gitCommit + " " + buildDate }
"#;

const GATE: &str = "package featuregate\n\n// Default is there to be read.\nvar Default = true\n";

const TYPES: [(usize, &str); 2] = [
    (1, "package v1alpha1\n\ntype ClusterPhase string\n\nconst (\n"),
    (94, "\t// can not recover\n\tClusterError ClusterPhase = \"Error\"\n)\n"),
];

const PROVISIONER: [(usize, &str); 6] = [
    (1, "package provisioner\n"),
    (22, "import (\n\t\"fmt\"\n\t\"time\"\n)\n"),
    (
        30,
        r#"const DefaultETCDPeerPort = 2380

type meta struct{ Name, Namespace string }

type template struct{}

func (template) GetAnnotations() time.Duration { return time.Second }

type set struct {
	ObjectMeta *meta
	Name       string
	Spec       struct {
		Replicas *int32
		Template template
	}
}

type service struct {
	ObjectMeta *meta
	Name       string
}

type bundle struct {
	StatefulSet *set
	Service     *service
}

// Say gives etcd's members and the namespace of the controller manager's Service.
func Say() string {
	replicas := int32(2)
	both := bundle{&set{ObjectMeta: &meta{}, Name: "etcd"}, &service{ObjectMeta: &meta{}, Name: "svc"}}
	both.StatefulSet.Spec.Replicas = &replicas
	members := complementETCDTemplate(&both)
	complementCtrlMgrTemplate("tenant", &both)
	return fmt.Sprint(members, " in ", both.Service.ObjectMeta.Namespace)
}
"#,
    ),
    (
        169,
        r#"// replicas specified in etcd StatefulSet
func genInitialClusterArgs(replicas int32, stsName, svcName string) (argsVal string) {
	for i := int32(0); i < replicas; i++ {
		// use 2380 as the default port for etcd peer communication
		peerAddr := fmt.Sprintf("%s-%d=https://%s-%d.%s:%d",
			stsName, i, stsName, i, svcName, DefaultETCDPeerPort)
		if i == replicas-1 {
			return argsVal + peerAddr
		}
		argsVal = argsVal + peerAddr + ","
	}
	return argsVal
}
"#,
    ),
    (
        189,
        r#"func complementETCDTemplate(etcdBdl *bundle) []string {
	var args []string
	icaVal := genInitialClusterArgs(*etcdBdl.StatefulSet.Spec.Replicas,
		etcdBdl.StatefulSet.Name, etcdBdl.Service.Name)
	args = append(args, "--initial-cluster", icaVal)
	return args
}
"#,
    ),
    (
        235,
        r#"func complementCtrlMgrTemplate(vcns string, ctrlMgrBdl *bundle) {
	ctrlMgrBdl.StatefulSet.ObjectMeta.Namespace = vcns
	annotations := ctrlMgrBdl.StatefulSet.Spec.Template.GetAnnotations()
	_ = annotations
}
"#,
    ),
];

const KUBECONFIG: [(usize, &str); 2] = [
    (1, "package kubeconfig\n\nimport (\n\t\"fmt\"\n\t\"net\"\n)\n"),
    (
        84,
        r#"// URLs gives the addresses of an API server.
func URLs(ips ...string) []string {
	urls := make([]string, 0, len(ips))
	for _, ip := range ips {
		addr := net.ParseIP(ip)
		if addr.To4() != nil {
			// is ipv4
			urls = append(urls, fmt.Sprintf("https://%v:6443", ip))
		} else {
			urls = append(urls, fmt.Sprintf("https://[%v]:6443", ip))
		}
	}
	return urls
}
"#,
    ),
];

const MUTATE: [(usize, &str); 2] = [
    (
        1,
        r#"package conversion

type spec struct {
	ClusterIP  string
	ClusterIPs []string
}

type service struct{ Spec spec }

type mutator struct{ pService *service }

// Say gives the addresses of a Service.
func Say() []string {
	s := mutator{&service{spec{"10.32.0.1", []string{"10.32.0.1"}}}}
	s.mutate(true)
	return s.pService.Spec.ClusterIPs
}
"#,
    ),
    (
        428,
        r#"func (s *mutator) mutate(set bool) {
	if set {
		s.pService.Spec.ClusterIP = ""
		s.pService.Spec.ClusterIPs = []string{}
	}
}
"#,
    ),
];

const OPTIONS: [(usize, &str); 2] = [
    (1, "package options\n\nimport \"os\"\n"),
    (
        109,
        r#"// Missing says whether a file has nothing in it.
func Missing(fn string) bool {
	if fn == "" {
		return true
	}
	fi, _ := os.Stat(fn)
	return fi.Size() == 0
}
"#,
    ),
];

const MANAGER: [&str; 6] = [
    "pkg/apis/tenancy/v1alpha1",
    "pkg/controller/controllers/provisioner",
    "pkg/controller/kubeconfig",
    "pkg/syncer/conversion",
    "pkg/syncer/util/featuregate",
    "pkg/version",
];
const MANAGER_SAYS: &str = r#"	fmt.Println("manager", version.Line())
	fmt.Println(provisioner.Say())
	fmt.Println(kubeconfig.URLs("10.0.0.1", "fd00::1", "name.example"))
	fmt.Println(v1alpha1.ClusterError, conversion.Say() == nil)
"#;

const SYNCER: [&str; 4] =
    ["pkg/apis/tenancy/v1alpha1", "pkg/syncer/conversion", "pkg/syncer/util/featuregate", "pkg/version"];
const SYNCER_SAYS: &str = r#"	fmt.Println("syncer", version.Line())
	fmt.Println(v1alpha1.ClusterError, conversion.Say() == nil)
"#;

const VN_AGENT: [&str; 3] = ["cmd/vn-agent/app/options", "pkg/syncer/util/featuregate", "pkg/version"];
const VN_AGENT_SAYS: &str = r#"	fmt.Println("vn-agent", version.Line())
	fmt.Println(options.Missing("/nonexistent/file"))
"#;

const PLUGIN: [&str; 4] =
    ["pkg/apis/tenancy/v1alpha1", "pkg/syncer/conversion", "pkg/syncer/util/featuregate", "pkg/version"];
const PLUGIN_SAYS: &str = r#"	fmt.Println("kubectl-vc version", version.Line())
	_, _ = v1alpha1.ClusterError, conversion.Say()
"#;
