"""What each backend lacks: why, and the cases that fail for it. What is not here must pass, what is here must fail. `*`
at the end of a name stands for the types of objects.

The reasons of fuse-native that are one word are names that the transport itself declares (src/fuse/native/lacks.ts).
"""

STRANGERS = {
    "FUSE does not tell a writer's groups, so setgid without group execution stays": """
        write_by_a_stranger_takes_even_that
    """,
}
# Of objects that start in the image.
LOWER = {
    "a name of the image is covered, not unlinked, so ctime of its other names stays": """
        rename_over_a_name_changes_ctime_of_the_others unlink_changes_ctime_of_the_other_names
    """,
    "ctime cannot be set, so that of a directory shows copies made in it": "ctime_stays_when_only_copied_up",
}
# Of files that read their data from the image.
ATIME = {
    "reading the image sets no atime": "atime_changes_by_reading_under_relatime atime_stays_with_noatime",
}

ROOT = STRANGERS

NATIVE = {
    **ROOT,
    "caller-ids": """
        create_with_special_bits create_belongs_to_the_maker create_over_a_removed_name_belongs_to_the_maker
        create_needs_write_and_search create_keeps_group_of_a_setgid_directory
        create_over_a_removed_name_in_a_setgid_directory create_setgid_executable_needs_the_group
        create_after_the_directory_changes_its_group mkdir_in_a_setgid_directory mknod_of_devices_is_roots
        groups_of_the_caller_all_count groups_of_the_caller_and_removed_names capabilities_of_the_caller_count
        each_type_in_a_sticky_directory_file each_type_in_a_sticky_directory_directory
        each_type_in_a_sticky_directory_symlink each_type_in_a_sticky_directory_fifo
        each_type_in_a_sticky_directory_socket
    """,
    "open-in-removed": """
        create_in_a_removed_directory rmdir_of_an_open_directory rmdir_of_the_working_directory
        rename_directory_over_an_empty_one unlink_a_fifo_in_use copy_of_a_directory_that_is_open_and_removed
    """,
    "rename-flags": """
        rename_noreplace rename_exchange rename_exchange_across_directories rename_whiteout_leaves_a_device
        each_type_is_exchanged_*
    """,
    "ns-times": """
        unlink_while_open times_are_set_to_the_nanosecond times_after_2038_and_2106 times_by_descriptor
        times_of_a_write_are_of_the_write times_set_survive_a_close_after_writing copy_of_a_file_in_a_deep_directory
        each_type_has_its_times_set_*
    """,
    "times-before-1970": "times_before_1970 times_of_what_was_made_show_as_set",
    "single-times": "times_omitted_and_now",
    "birth-time": "times_of_creation_are_told",
    "wide-inodes": """
        link_survives_remount rename_one_of_several_names rename_directory inode_numbers_stay
        copy_keeps_everything_of_a_file each_type_is_renamed_*
    """,
    "posix-acl": """
        acl_is_kept_and_shows_in_the_mode acl_that_says_no_more_than_a_mode_is_a_mode acl_is_the_owners_to_change
        acl_takes_setgid_from_who_is_not_of_the_group acl_made_before_is_kept acl_follows_chmod acl_is_removed
        acl_default_is_inherited acl_default_is_inherited_over_removed_names
        acl_default_is_inherited_by_what_a_rename_leaves
        acl_default_of_three_entries_replaces_the_umask acl_is_checked acl_default_and_setgid_together
        acl_default_is_inherited_by_devices
    """,
    "fallocate": """
        write_by_a_user_into_fallocated_and_copied fallocate_extends fallocate_keeps_the_size
        fallocate_inside_changes_no_byte fallocate_punches_holes fallocate_zeros_a_range
    """,
    "lseek": "seek_finds_data_and_holes seek_after_writing_into_a_hole copy_keeps_holes",
    "tmpfile": """
        tmpfile_has_no_name tmpfile_is_linked tmpfile_linked_where_a_name_was tmpfile_exclusive_is_never_linked
        tmpfile_is_mapped_cut_and_locked tmpfile_of_another_user
    """,
    "link-caches": """
        flock_is_of_the_file_not_the_name mmap_of_two_names_is_one mkfifo_two_names_one_pipe socket_names_are_bound
        inotify_of_another_name write_by_one_name_shows_by_the_other
    """,
    "byte-names": "names_of_any_bytes symlink_target_is_bytes xattr_names_and_values_are_bytes",
    "trusted-names": "xattr_trusted_are_roots",
    "chown-nothing": "chown_to_nothing_takes_setuid_away_and_changes_ctime each_type_changes_its_owner_*",
}

TABLE = {
    "upper": ROOT,
    "lower": {**ROOT, **LOWER, **ATIME},
    "copied": ROOT,
    "metacopied": {**ROOT, **ATIME},
    "user-lower": {**LOWER, **ATIME},
    "rootless-lower": {**LOWER, **ATIME},
    "fuse-native": NATIVE,
}

LACKS = {name: {why: frozenset(lacking.split()) for why, lacking in table.items()} for name, table in TABLE.items()}
