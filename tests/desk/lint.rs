//! `falco-operator lint`.

use super::support::{folder, run};

#[test]
fn exit_codes_say_what_was_found() {
    let good =
        "apiVersion: mumoshu.github.io/v1alpha1\nkind: FalcoList\nmetadata: {name: l}\nspec: {list: l, items: [a]}\n";
    let dir = folder(&[("good.yaml", good), ("bad.yaml", &good.replace("items", "itmes"))]);
    assert_eq!(run(dir.path(), &["lint", "good.yaml"], "").code, 0);
    let outcome = run(dir.path(), &["lint", "."], "");
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("there is no key `itmes` in `spec`"), "{outcome:?}");
    assert!(outcome.out.contains("did you mean `items`?"), "{outcome:?}");
    assert_eq!(run(dir.path(), &["lint", "good.yaml", "none.yaml"], "").code, 2);
    assert_eq!(run(dir.path(), &["lint", "-"], "a: [").code, 1);
}
