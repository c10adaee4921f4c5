//! The cluster itself: what tests rely on without saying so.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt;
use test_cluster::{Cluster, Image, NodeOptions, Options, Signal, wait};

const LIMIT: Duration = Duration::from_mins(1);
/// Starting a cluster beside others.
const START: Duration = Duration::from_mins(10);

fn options(nodes: usize) -> Options {
    Options {
        nodes,
        images: vec![Image { name: "tool".into(), ..Image::default() }],
        node_files: BTreeMap::from([("/etc/greeting".into(), "hello from the node\n".into())]),
        ..Options::default()
    }
}

/// A pod of ours that runs a shell script.
fn pod(name: &str, rest: &str, script: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{app.kubernetes.io/name: falco-operator, app: {name}}}}}\n\
         spec: {{terminationGracePeriodSeconds: 5, {rest} containers: [{{name: main, image: \"registry.example/tool:1\", command: [sh, -c, {script}], \
         env: [{{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}, {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}, {{name: SAID, value: \"$(NODE) at $(POD_IP)\"}}], \
         volumeMounts: [{{name: host, mountPath: /var/falco-operator}}]}}], volumes: [{{name: host, hostPath: {{path: /var/falco-operator, type: DirectoryOrCreate}}}}]}}\n"
    )
}

fn phase(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"])
}

fn wait_ready(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", name]).unwrap();
}

fn alive(pid: i32) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_pod_is_a_process_with_its_own_world() {
    let cluster = Cluster::start(&options(1)).unwrap();
    let script = "trap 'echo bye; exit 3' TERM; echo \"$SAID\"; echo kept >/var/falco-operator/file; \
         [ $$$$ = 1 ] && echo first; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; \
         touch /usr/bin/of-the-container /tmp/of-the-container; echo \"$KUBERNETES_SERVICE_HOST\"; while :; do sleep 0.1; done";
    cluster.apply(&pod("world", "", script)).unwrap();
    wait_ready(&cluster, "world");
    let log = wait::until("the pod has spoken", LIMIT, || {
        let log = cluster.logs("default", "world")?;
        // The last line that it says has the second of two addresses.
        ensure!(log.lines().filter(|line| line.contains("127.")).count() == 2, "{log}");
        Ok(log)
    })
    .unwrap();
    let ip = cluster.kubectl(&["get", "pod", "world", "-o", "jsonpath={.status.podIP}"]).unwrap();
    assert!(log.contains(&format!("node-1 at {ip}")), "{log}");
    assert!(log.contains("first") && log.contains("default"), "{log}");
    let on_disk = cluster.node_path("node-1", "/var/falco-operator/file");
    assert_eq!(std::fs::read_to_string(on_disk).unwrap(), "kept\n");
    assert_eq!(std::fs::read_to_string(cluster.node_path("node-1", "/etc/greeting")).unwrap(), "hello from the node\n");
    for mine in ["/usr/bin/of-the-container", "/tmp/of-the-container"] {
        assert!(!Path::new(mine).exists(), "{mine} was written outside the container");
    }

    // The token is the pod's own: the API server knows pod and node, and grants what RBAC grants.
    let token = cluster.token_of("default", "world").unwrap();
    let mark = cluster.mark();
    let as_pod = cluster.client_as(&token).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let secrets = kube::Api::<k8s_openapi::api::core::v1::Secret>::namespaced(as_pod, "default");
    let refused = runtime.block_on(secrets.get("any")).unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    let asked = cluster.requests_since(mark).unwrap();
    let asked = asked.iter().find(|event| event.is_by("default/default")).context("no audit event").unwrap();
    assert_eq!((asked.node.as_deref(), asked.pod.as_deref()), (Some("node-1"), Some("world")));
    assert_eq!((asked.verb.as_str(), asked.resource.as_str(), asked.code), ("get", "secrets", 403));

    // Asked to go, it says goodbye and goes.
    let pids = cluster.processes("default", "world").unwrap();
    cluster.kubectl(&["delete", "pod", "world"]).unwrap();
    assert!(cluster.logs("default", "world").unwrap().contains("bye"));
    assert!(pids.into_iter().all(|pid| !alive(pid)));
}

#[test]
fn containers_restart_and_jobs_end() {
    let cluster = Cluster::start(&options(1)).unwrap();
    cluster.apply(&pod("again", "", "sleep 1000 & echo started; wait")).unwrap();
    wait_ready(&cluster, "again");
    let before = wait::until("the pod's processes are there", LIMIT, || {
        let pids = cluster.processes("default", "again")?;
        ensure!(pids.len() == 2, "{pids:?}");
        Ok(pids)
    })
    .unwrap();
    cluster.signal("default", "again", None, Signal::SIGKILL).unwrap();
    wait::until("the container was started again", LIMIT, || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].lastState.terminated.exitCode}";
        let seen = cluster.kubectl(&["get", "pod", "again", "-o", path])?;
        ensure!(seen == "1 137", "{seen}");
        Ok(())
    })
    .unwrap();
    assert!(before.into_iter().all(|pid| !alive(pid)), "a container's processes end with its first one");

    // Exit codes are the processes' own.
    cluster.apply(&pod("fails", "restartPolicy: Never,", "exit 7")).unwrap();
    cluster.apply(&pod("works", "restartPolicy: Never,", "exit 0")).unwrap();
    for (name, wanted, code) in [("fails", "Failed", "7"), ("works", "Succeeded", "0")] {
        wait::until("the pod is over", LIMIT, || {
            let seen = phase(&cluster, name)?;
            ensure!(seen == wanted, "{seen}");
            Ok(())
        })
        .unwrap();
        let path = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
        assert_eq!(cluster.kubectl(&["get", "pod", name, "-o", path]).unwrap(), code);
    }

    // An init container runs to its end first, and what it leaves in an emptyDir is there.
    let init = "initContainers: [{name: copy, image: tool, command: [sh, -c, 'echo carried >/shared/file'], volumeMounts: [{name: host, mountPath: /shared, subPath: from-init}]}],";
    cluster.apply(&pod("init", init, "cat /var/falco-operator/from-init/file; sleep 1000")).unwrap();
    wait_ready(&cluster, "init");
    wait::until("the file was carried over", LIMIT, || {
        ensure!(cluster.logs("default", "init")?.contains("carried"));
        Ok(())
    })
    .unwrap();

    // An unknown image is an error that can be read, not a silence.
    let strange = pod("strange", "", "sleep 1").replace("registry.example/tool:1", "registry.example/other:1");
    cluster.apply(&strange).unwrap();
    wait::until("the reason is told", LIMIT, || {
        let path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
        let seen = cluster.kubectl(&["get", "pod", "strange", "-o", path])?;
        ensure!(seen == "ErrImagePull", "{seen}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn probes_decide_and_services_pass_on() {
    let cluster = Cluster::start(&options(1)).unwrap();
    let script = "mkdir /tmp/www; cd /tmp/www; touch live; exec python3 -m http.server 8000 --bind $POD_IP";
    let probes = "ports: [{name: web, containerPort: 8000}], \
         readinessProbe: {httpGet: {path: /ready, port: web}, periodSeconds: 1, failureThreshold: 1}, \
         startupProbe: {httpGet: {path: /live, port: 8000}, periodSeconds: 1, failureThreshold: 120}, \
         livenessProbe: {httpGet: {path: /live, port: 8000}, periodSeconds: 1, failureThreshold: 3}, env:";
    cluster.apply(&pod("web", "", script).replacen("env:", probes, 1)).unwrap();
    cluster
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: web}]}\n")
        .unwrap();
    let ip = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let first = wait::until("the container runs", LIMIT, || {
        cluster.processes("default", "web")?.first().copied().context("no process")
    })
    .unwrap();
    let www = format!("/proc/{first}/root/tmp/www");
    wait::until("the folder is there", LIMIT, || Ok(std::fs::metadata(format!("{www}/live"))?)).unwrap();
    assert_ne!(ready(&cluster, "web"), "True", "not ready before the probe says so");
    std::fs::write(format!("{www}/ready"), "through the Service").unwrap();
    wait_ready(&cluster, "web");
    wait::until("the Service answers", LIMIT, || {
        let answer = get(&ip, 80, "/ready")?;
        ensure!(answer.ends_with("through the Service"), "{answer}");
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(format!("{www}/ready")).unwrap();
    wait::until("the pod is not ready any more", LIMIT, || {
        ensure!(ready(&cluster, "web") == "False");
        Ok(())
    })
    .unwrap();
    // No ready pod: the connection is closed without a word.
    wait::until("the Service has nobody to ask", LIMIT, || {
        ensure!(get(&ip, 80, "/live").is_ok_and(|answer| answer.is_empty()));
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(format!("{www}/live")).unwrap();
    wait::until("the liveness probe had it restarted", LIMIT, || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        let seen = cluster.kubectl(&["get", "pod", "web", "-o", path])?;
        ensure!(seen != "0", "{seen}");
        Ok(())
    })
    .unwrap();
}

fn ready(cluster: &Cluster, name: &str) -> String {
    let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    cluster.kubectl(&["get", "pod", name, "-o", path]).unwrap()
}

fn get(ip: &str, port: u16, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect((ip, port))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    // A connection that is closed at once may be reset while the request is written.
    let _ = stream.read_to_string(&mut answer);
    Ok(answer)
}

#[test]
fn nodes_come_and_go() {
    let cluster = Cluster::start(&options(2)).unwrap();
    let template = pod("each", "", "echo up; exec sleep 1000");
    let template: serde_json::Value = kube_yaml(&template);
    let set = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "each", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "each"}},
            "template": {"metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]}},
    });
    cluster.apply(&set.to_string()).unwrap();
    let ready_on = |nodes: &[&str]| {
        wait::until("each node has its pod", LIMIT, || {
            let pods = cluster.pods("app=each")?;
            let mut on: Vec<_> = pods
                .iter()
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .filter(|pod| {
                    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
                })
                .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
                .collect();
            on.sort();
            ensure!(on == nodes, "{on:?}");
            Ok(pods)
        })
    };
    ready_on(&["node-1", "node-2"]).unwrap();
    cluster.add_node("node-3").unwrap();
    let pods = ready_on(&["node-1", "node-2", "node-3"]).unwrap();

    // The power goes: no process is left, and the control plane notices.
    let on_two = pods.iter().find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node-2")).unwrap();
    let ids = cluster.processes("default", &on_two.name_any()).unwrap();
    cluster.stop_node("node-2").unwrap();
    assert!(ids.into_iter().all(|pid| !alive(pid)));
    ready_on(&["node-1", "node-3"]).unwrap();
    cluster.start_node("node-2").unwrap();
    ready_on(&["node-1", "node-2", "node-3"]).unwrap();

    let uid = |name: &str| cluster.kubectl(&["get", "node", name, "-o", "jsonpath={.metadata.uid}"]).unwrap();
    let before = uid("node-3");
    std::fs::write(cluster.node_path("node-3", "/left"), "here").unwrap();
    cluster.recreate_node("node-3").unwrap();
    assert_ne!(before, uid("node-3"));
    assert_eq!(std::fs::read_to_string(cluster.node_path("node-3", "/left")).unwrap(), "here");
    ready_on(&["node-1", "node-2", "node-3"]).unwrap();

    cluster.delete_node("node-1").unwrap();
    cluster.remove_pods_of("node-1").unwrap();
    ready_on(&["node-2", "node-3"]).unwrap();
}

fn kube_yaml(text: &str) -> serde_json::Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn a_disk_can_be_full_or_read_only() {
    let cluster = Cluster::start(&options(0)).unwrap();
    let disk = NodeOptions { disk: Some(1 << 20), ..NodeOptions::default() };
    if let Err(err) = cluster.add_node_with("small", &disk) {
        assert!(!nix::unistd::geteuid().is_root(), "{err:#}");
        eprintln!("skipped: a disk of its own needs root");
        return;
    }
    let script = "while :; do (echo x >/var/falco-operator/probe.new && sleep 0.1 && mv /var/falco-operator/probe.new /var/falco-operator/probe) && echo wrote || echo refused; sleep 0.05; done";
    cluster.apply(&pod("writer", "", script)).unwrap();
    wait_ready(&cluster, "writer");
    let last = |wanted: &str| {
        wait::until("the writer meets the disk", LIMIT, || {
            let log = cluster.logs("default", "writer")?;
            ensure!(log.lines().last() == Some(wanted), "{log}");
            Ok(())
        })
        .unwrap();
    };
    last("wrote");
    // Filled while the file is there twice: what its replacing frees must not be room for the next one.
    let new = cluster.node_path("small", "/var/falco-operator/probe.new");
    wait::until("it is filled while the file is being replaced", LIMIT, || {
        std::fs::metadata(&new)?;
        cluster.fill_disk("small")?;
        if std::fs::metadata(&new).is_err() {
            cluster.free_disk("small")?;
            bail!("it was too late");
        }
        Ok(())
    })
    .unwrap();
    last("refused");
    cluster.free_disk("small").unwrap();
    last("wrote");
    cluster.remount("default", "writer", "/var/falco-operator", true).unwrap();
    last("refused");
    cluster.remount("default", "writer", "/var/falco-operator", false).unwrap();
    last("wrote");
}

#[test]
fn nothing_is_left_behind() {
    let (dir, pids) = {
        let cluster = Cluster::start(&options(1)).unwrap();
        let mut pids: Vec<_> = cluster.component_pids().into_iter().map(|(_, pid)| pid).collect();
        assert_eq!(pids.len(), 5);
        pids.extend(three(&cluster));
        assert!(pids.iter().all(|pid| alive(*pid)));
        (cluster.dir().to_path_buf(), pids)
    };
    assert!(pids.into_iter().all(|pid| !alive(pid)));
    assert!(!dir.exists());
}

/// A pod of three processes that stay, once they are there and those are gone that set it up.
fn three(cluster: &Cluster) -> Vec<i32> {
    cluster.apply(&pod("left", "", "sleep 1000 & sleep 1000 & echo all there; wait")).unwrap();
    wait::until("the pod's processes are there", LIMIT, || {
        let (log, pids) = (cluster.logs("default", "left")?, cluster.processes("default", "left")?);
        ensure!(log.contains("all there") && pids.len() == 3, "{pids:?}: {log}");
        Ok(pids)
    })
    .unwrap()
}

/// Not a test of its own: what `even_when_killed_nothing_is_left_behind` starts, and kills.
#[test]
#[ignore = "started by another test"]
fn holder() {
    let cluster = Cluster::start(&options(1)).unwrap();
    let mut pids: Vec<_> = cluster.component_pids().into_iter().map(|(_, pid)| pid).collect();
    pids.extend(three(&cluster));
    let held = serde_json::json!({"dir": cluster.dir(), "pids": pids});
    std::fs::write(std::env::var("HELD").unwrap(), held.to_string()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn even_when_killed_nothing_is_left_behind() {
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--ignored"])
        .env("HELD", told.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held: serde_json::Value = wait::until("the holder has a cluster", START, || {
        let ended = holder.try_wait()?;
        if ended.is_some() {
            return Ok(serde_json::Value::Null);
        }
        Ok(serde_json::from_str(&std::fs::read_to_string(told.path())?)?)
    })
    .unwrap();
    assert!(!held.is_null(), "the holder has ended");
    let pids: Vec<i32> = serde_json::from_value(held["pids"].clone()).unwrap();
    assert!(pids.len() > 5 && pids.iter().all(|pid| alive(*pid)), "{held}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait::until("everything is gone", LIMIT, || {
        let left: Vec<_> = pids.iter().filter(|pid| alive(**pid)).collect();
        ensure!(left.is_empty(), "these processes are left: {left:?}");
        ensure!(!Path::new(held["dir"].as_str().unwrap()).exists(), "the folder is left");
        Ok(())
    })
    .unwrap();
}

#[test]
fn containers_may_share_their_processes() {
    let cluster = Cluster::start(&options(1)).unwrap();
    let both = pod("both", "shareProcessNamespace: true,", "trap 'echo heard' USR1; while :; do sleep 0.05; done")
        .replace("containers: [", "containers: [{name: beside, image: tool, command: [sh, -c, \"while :; do grep -lz heard /proc/[0-9]*/cmdline | cut -d/ -f3 | xargs -r kill -USR1; sleep 0.2; done\"]}, ");
    cluster.apply(&both).unwrap();
    wait_ready(&cluster, "both");
    wait::until("one container signals the other", LIMIT, || {
        ensure!(cluster.logs("default", "both")?.contains("heard"));
        Ok(())
    })
    .unwrap();
    let restarts = || -> Result<u32> {
        let path = "jsonpath={.status.containerStatuses[?(@.name=='main')].restartCount}";
        Ok(cluster.kubectl(&["get", "pod", "both", "-o", path])?.parse()?)
    };
    // A signal that comes before the trap is set ends the container.
    let before = restarts().unwrap();
    let pids = cluster.processes("default", "both").unwrap();
    cluster.signal("default", "both", Some("main"), Signal::SIGKILL).unwrap();
    wait::until("the container was started again", LIMIT, || {
        let seen = restarts()?;
        ensure!(seen > before, "{seen}");
        Ok(())
    })
    .unwrap();
    cluster.kubectl(&["delete", "pod", "both", "--grace-period=1"]).unwrap();
    assert!(pids.into_iter().all(|pid| !alive(pid)));
}
