use std::collections::HashSet;

use super::*;
use crate::system::btf::{KERNEL_BTF, read};

#[test]
fn a_file_without_types_lacks_everything() {
    let mut empty = vec![0; 24];
    empty[..2].copy_from_slice(&0xeb9fu16.to_ne_bytes());
    empty[4..8].copy_from_slice(&24u32.to_ne_bytes());
    let types = Types::parse(&empty).unwrap();
    let layout = Layout::resolve(&types);
    for program in Program::ALL {
        assert!(!layout.has_target(program) && !layout.lacking(program).is_empty());
    }
    assert!(layout.globals().all(|(_, offset)| offset == ABSENT));
    assert_eq!(layout.globals().count(), WANTED.len());
}

#[test]
fn each_global_is_set_once() {
    let names: HashSet<&str> = WANTED.iter().map(|wanted| wanted.global).collect();
    assert_eq!(names.len(), WANTED.len());
}

#[test]
fn this_kernel_has_all_fields() {
    let Ok(bytes) = read(std::path::Path::new(KERNEL_BTF)) else {
        println!("SKIP: {KERNEL_BTF} cannot be read");
        return;
    };
    let started = std::time::Instant::now();
    let types = Types::parse(&bytes).unwrap();
    let layout = Layout::resolve(&types);
    println!("{} types in {} bytes: {:?}", types.len(), bytes.len(), started.elapsed());
    for program in Program::ALL {
        assert!(layout.has_target(program), "{program:?}");
        assert_eq!(layout.lacking(program), Vec::<&str>::new(), "{program:?}");
    }
    let offset = |global| layout.globals().find(|(name, _)| *name == global).unwrap().1;
    // The same on every kernel that was looked at (5.10 to 7.3).
    assert_eq!((offset("FLOWIC_OIF"), offset("FLOWIC_IIF")), (0, 4));
    assert_eq!((offset("FLOWI4_SADDR"), offset("FLOWI4_DADDR")), (40, 44));
    assert_eq!((offset("NHC_DEV"), offset("NHC_GW_FAMILY"), offset("NHC_GW")), (0, 14, 24));
    assert_eq!((offset("FIB6_RESULT_NH"), offset("FIB6_RESULT_F6I"), offset("FIB6_RESULT_TYPE")), (0, 8, 20));
    assert_eq!((offset("FIB6_TABLE_ID"), offset("SKB_LEN")), (16, 112));
    // Reasons came with 5.17; their numbers differ from kernel to kernel.
    let reasons = layout.drop_reasons();
    println!("{} reasons for drops", reasons.len());
    assert!(reasons.is_empty() || reasons.iter().any(|(_, name)| name == "NO_SOCKET"), "{reasons:?}");
}
