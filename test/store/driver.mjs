// Does things to a store in a process of its own: node driver.mjs DIST STORE OPERATION...
//   create SOURCE ID [LIMIT]   pull SOURCE   delete ID   clean   list   stats ID   sizes   delete-store
// each prints a line of JSON
import { writeSync } from "node:fs";

const [dist, path, operation, ...args] = process.argv.slice(2);
const from = (name) => import(`${dist}/store/${name}.js`);
const { openStore } = await from("store");
const measures = [];
const measure = (name, value) => measures.push([name, value]);
const warnings = [];
try {
  const store = { ...openStore(path), warn: (message) => warnings.push(message) };
  let result = {};
  switch (operation) {
    case "create": {
      const limit = args[2] === undefined ? {} : { limitBytes: Number(args[2]) };
      const options = {
        source: args[0],
        id: args[1],
        mount: process.env.NO_MOUNT === undefined,
        measure,
        ...limit,
      };
      result = await (await from("create")).createImage(store, options);
      break;
    }
    case "pull":
      await (await from("create")).pullImage(store, { source: args[0], measure });
      break;
    case "delete":
      await (await from("delete")).deleteImage(store, args[0]);
      break;
    case "clean":
      result = await (await from("clean")).cleanStore(store, {
        thresholdBytes: 0,
        mode: "committed",
        keep: [],
        timeout: process.env.CLEAN_TIMEOUT === undefined ? undefined : Number(process.env.CLEAN_TIMEOUT),
      });
      break;
    case "list":
      result = { images: (await from("list")).listImages(store).map(({ id }) => id) };
      break;
    case "stats":
      result = await (await from("stats")).imageStats(store, args[0]);
      break;
    case "sizes":
      result = (await from("sizes")).storeSizes(store);
      break;
    case "delete-store":
      await (await from("store")).deleteStore(path);
      break;
    default:
      throw new Error(operation);
  }
  const unpacked = measures.filter(([name]) => name === "UnpackTime").length;
  writeSync(1, JSON.stringify({ ok: true, result, unpacked, warnings }));
  process.exit(0);
} catch ({ kind, code, message }) {
  writeSync(1, JSON.stringify({ ok: false, kind, code, message, warnings }));
  process.exit(1);
}
