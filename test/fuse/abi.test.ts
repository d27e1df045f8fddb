// Record sizes against the numbers of include/uapi/linux/fuse.h (sizeof, as a C compiler gives them).
import { describe, expect, it } from "vitest";
import * as abi from "../../src/fuse/abi.js";

const sizes: Readonly<Record<string, number>> = {
  InHeader: 40,
  OutHeader: 16,
  Attr: 88,
  EntryOut: 128,
  AttrOut: 104,
  OpenOut: 16,
  WriteOut: 8,
  StatfsOut: 80,
  GetxattrOut: 8,
  LseekOut: 8,
  CopyFileRangeOut: 8,
  Dirent: 24,
  InitIn: 64,
  InitOut: 64,
  ForgetIn: 8,
  BatchForgetIn: 8,
  ForgetOne: 16,
  GetattrIn: 16,
  StatxIn: 24,
  StatxOut: 288,
  SetattrIn: 88,
  MknodIn: 16,
  MkdirIn: 8,
  RenameIn: 8,
  Rename2In: 16,
  LinkIn: 8,
  OpenIn: 8,
  CreateIn: 16,
  ReadIn: 40,
  WriteIn: 40,
  ReleaseIn: 24,
  FlushIn: 24,
  FsyncIn: 16,
  SetxattrIn: 16,
  SetxattrInCompat: 8,
  GetxattrIn: 8,
  InterruptIn: 8,
  FallocateIn: 32,
  LseekIn: 24,
  CopyFileRangeIn: 56,
  SyncfsIn: 8,
  NotifyInvalInodeOut: 24,
  NotifyInvalEntryOut: 16,
};

describe("the protocol's records", () => {
  it("have the sizes of the kernel's header, and none is forgotten here", () => {
    const layouts = Object.entries(abi).flatMap(([name, value]) =>
      typeof value === "object" && "byteLength" in value ? [[name, value.byteLength] as const] : [],
    );
    expect(Object.fromEntries(layouts)).toEqual(sizes);
  });

  it("place the fields that a wrong width before them would move", () => {
    expect(abi.InHeader.pid).toBe(32);
    expect(abi.EntryOut.attr).toBe(40);
    expect(abi.Attr.mode).toBe(60);
    expect(abi.SetattrIn.mode).toBe(68);
    expect(abi.SetattrIn.uid).toBe(76);
    expect(abi.InitOut.maxPages).toBe(28);
    expect(abi.InitOut.flags2).toBe(32);
    expect(abi.InitOut.maxStackDepth).toBe(36);
    expect(abi.WriteIn.size).toBe(16);
    expect(abi.FallocateIn.mode).toBe(24);
  });
});
