// Platforms, `os/arch[/variant]` in Go's names (image-spec, image-index.md#platform), and the choice among several.
// Names that uname and Debian use are understood; arm64 without a variant is v8, as containerd has it.

/** A platform; `variant` is "" where there is none. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

const architectureNames: Readonly<Record<string, string>> = {
  x64: "amd64",
  x86_64: "amd64",
  "x86-64": "amd64",
  aarch64: "arm64",
  ia32: "386",
  i386: "386",
  i686: "386",
  x86: "386",
  armhf: "arm",
  armel: "arm",
  loong64: "loong64",
  ppc64el: "ppc64le",
};

/** What a name of an architecture says about the variant. */
const impliedVariant: Readonly<Record<string, string>> = { armhf: "v7", armel: "v6" };

function normalise(os: string, architecture: string, variant: string): Platform {
  const name = architecture.toLowerCase();
  const arch = architectureNames[name] ?? name;
  const implied = variant === "" ? (impliedVariant[name] ?? "") : variant.toLowerCase();
  const plain = (arch === "arm64" && implied === "v8") || (arch === "amd64" && implied === "v1");
  return { os: os.toLowerCase(), architecture: arch, variant: plain ? "" : implied };
}

/** A platform from the fields of an OCI object. */
export function platformOf(os: string, architecture: string, variant: string | undefined): Platform {
  return normalise(os, architecture, variant ?? "");
}

/** This machine's platform. The operating system is always linux: nothing else can be mounted here. */
export function hostPlatform(): Platform {
  // Node gives ppc64 for the little-endian machine too; it does not run on the other.
  const architecture = process.arch === "ppc64" ? "ppc64le" : process.arch;
  return normalise("linux", architecture, architecture === "arm" ? "v7" : "");
}

/** Parses `os/arch[/variant]`. Throws an Error that quotes the text. */
export function parsePlatform(text: string): Platform {
  const parts = text.split("/");
  const [os, architecture, variant] = parts;
  if (!os || !architecture || parts.length > 3 || variant === "") {
    throw new Error(`not a platform: ${JSON.stringify(text)}: expected os/arch or os/arch/variant`);
  }
  return normalise(os, architecture, variant ?? "");
}

/** `os/arch[/variant]`. */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform;
  return variant === "" ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** Variants of 32-bit arm run what lower ones need. */
function armLevel(variant: string): number {
  const match = /^v([5-8])$/.exec(variant);
  return match ? Number(match[1]) : variant === "" ? 7 : -1;
}

/**
 * How well `offered` serves `wanted`: 0 for not at all, else the higher the better. An exact variant is best; a wish
 * without one takes an offer without one first; arm v7 runs v6 and v5.
 */
export function platformScore(wanted: Platform, offered: Platform): number {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return 0;
  if (wanted.variant === offered.variant) return 100;
  if (wanted.architecture === "arm") {
    const have = armLevel(offered.variant);
    return have >= 0 && have <= armLevel(wanted.variant) ? 10 + have : 0;
  }
  return wanted.variant === "" ? 1 : 0;
}

/**
 * The candidate that serves `wanted` best, the first of equals. Throws an Error that lists what there is; `subject`
 * names the object that holds the candidates.
 */
export function choosePlatform<T>(
  subject: string,
  wanted: Platform,
  candidates: readonly (T & { readonly platform: Platform })[],
): T {
  let best: T | undefined;
  let bestScore = 0;
  for (const candidate of candidates) {
    const score = platformScore(wanted, candidate.platform);
    if (score > bestScore) {
      best = candidate;
      bestScore = score;
    }
  }
  if (best !== undefined) return best;
  const offered = [...new Set(candidates.map((candidate) => formatPlatform(candidate.platform)))];
  throw new Error(`${subject}: nothing for platform ${formatPlatform(wanted)}; it has ${offered.join(", ")}`);
}
