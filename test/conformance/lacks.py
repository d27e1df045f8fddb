"""What each backend lacks: why, and the cases that fail for it. What is not here must pass, what is here must fail.

The reasons of fuse-native are the names that the transport itself declares (src/fuse/native/lacks.ts).
"""

RENAME_WHITEOUT = {"RENAME_WHITEOUT is refused": "rename_whiteout_leaves_a_device"}
CTIME_OF_LOWER_NAMES = {
    "a name of the image is covered, not unlinked, so ctime of its other names stays": """
        rename_over_a_name_changes_ctime_of_the_others unlink_changes_ctime_of_the_other_names
    """,
}

TABLE = {
    "upper": RENAME_WHITEOUT,
    "lower": {**RENAME_WHITEOUT, **CTIME_OF_LOWER_NAMES},
    "copied": RENAME_WHITEOUT,
    "metacopied": RENAME_WHITEOUT,
    "user-lower": CTIME_OF_LOWER_NAMES,
    "rootless-lower": CTIME_OF_LOWER_NAMES,
    "fuse-native": {
        "caller-ids": """
            create_with_special_bits create_belongs_to_the_maker create_over_a_removed_name_belongs_to_the_maker
            create_needs_write_and_search create_keeps_group_of_a_setgid_directory
            create_over_a_removed_name_in_a_setgid_directory create_setgid_executable_needs_the_group
            create_after_the_directory_changes_its_group mkdir_in_a_setgid_directory
        """,
        "open-in-removed": """
            create_in_a_removed_directory rmdir_of_an_open_directory rmdir_of_the_working_directory
            rename_directory_over_an_empty_one unlink_a_fifo_in_use
        """,
        "rename-flags": """
            rename_noreplace rename_exchange rename_exchange_across_directories rename_whiteout_leaves_a_device
        """,
        "ns-times": "unlink_while_open",
        "wide-inodes": "link_survives_remount rename_one_of_several_names rename_directory",
    },
}

LACKS = {name: {why: frozenset(lacking.split()) for why, lacking in table.items()} for name, table in TABLE.items()}
