// The control socket of one mount, served by the main thread of its process: whoever owns the mount asks for its figures
// there, and sets its quota.
// Never: the own mount touched by path, an exception out of here, the process kept alive by it, memory that grows with what
// a client sends or does not read. Many clients at once are served in turn.
// The socket appears by a rename when it listens and has its mode, so whoever sees it can use it; where a connection is
// refused, its process is gone.
import { chmodSync, closeSync, readdirSync, renameSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { processStartTime } from "../sys/process-time.js";
import {
  type ControlFolder,
  NEW_SUFFIX,
  parseSocketName,
  pathIn,
  type SocketName,
  socketName,
} from "./control-place.js";
import {
  answer,
  type Controlled,
  type Hello,
  LINE_LIMIT,
  type Reply,
  tooLong,
  VERSION,
} from "./control-protocol.js";

/** Connections at a time; for one more, the one that has been quiet longest ends. */
export const CLIENT_LIMIT = 32;
/** Bytes of a request that is too long that are read and dropped. */
const IGNORED_LIMIT = 1 << 20;
const NEWLINE = 10;

export class ControlSocket {
  private readonly folder: ControlFolder;
  private readonly path: string;
  private readonly server: Server;
  /** The one that spoke last is the last. */
  private readonly clients = new Set<Client>();

  private constructor(folder: ControlFolder, name: string, hello: Hello, mount: Controlled) {
    this.folder = folder;
    this.path = pathIn(folder, name);
    this.server = createServer({ allowHalfOpen: true }, (socket) => this.accept(socket, hello, mount));
    this.server.unref();
  }

  /** Makes the socket; it takes the folder's descriptor over. Rejects with a system error. */
  static async open(
    folder: ControlFolder,
    device: string | undefined,
    mountpoint: string,
    mount: Controlled,
  ): Promise<ControlSocket> {
    const { pid } = process;
    const name: SocketName = { device, pid, startTime: processStartTime(pid) ?? "0" };
    const hello: Hello = { version: VERSION, hello: { pid, mountpoint, device: device ?? null } };
    const socket = new ControlSocket(folder, socketName(name), hello, mount);
    await socket.listen();
    return socket;
  }

  /** Ends all connections and removes the socket. Does not throw. */
  close(): void {
    this.server.close();
    for (const client of this.clients) client.end();
    try {
      unlinkSync(this.path);
    } catch {
      // Removed by somebody else.
    }
    closeSync(this.folder.fd);
  }

  private listen(): Promise<void> {
    const { path, server } = this;
    const fresh = `${path}${NEW_SUFFIX}`;
    return new Promise((done, fail) => {
      server.once("error", fail);
      server.listen(fresh, () => {
        server.off("error", fail);
        server.on("error", () => {});
        try {
          chmodSync(fresh, 0o600);
          renameSync(fresh, path);
          done();
        } catch (cause) {
          server.close();
          fail(cause);
        }
      });
    });
  }

  private accept(socket: Socket, hello: Hello, mount: Controlled): void {
    const { clients } = this;
    if (clients.size >= CLIENT_LIMIT) for (const quietest of [...clients].slice(0, 1)) quietest.end();
    const client = new Client(socket, {
      answer: (line) => {
        clients.delete(client);
        clients.add(client);
        return answer(line, mount);
      },
      gone: () => clients.delete(client),
    });
    clients.add(client);
    client.send(hello);
  }
}

interface ClientHooks {
  answer(line: Uint8Array): Reply;
  gone(): void;
}

/** One connection. While it does not read what it has asked for, nothing more of it is read. */
class Client {
  private readonly socket: Socket;
  private readonly hooks: ClientHooks;
  private unread: Buffer = Buffer.alloc(0);
  private blocked = false;
  private ended = false;
  /** What came after a request that was too long. */
  private ignored = 0;
  private refused = false;

  constructor(socket: Socket, hooks: ClientHooks) {
    this.socket = socket;
    this.hooks = hooks;
    socket.unref();
    socket.on("error", () => {});
    socket.on("close", () => hooks.gone());
    socket.on("data", (chunk: Buffer) => {
      if (this.refused) return this.ignore(chunk.length);
      this.unread = this.unread.length === 0 ? chunk : Buffer.concat([this.unread, chunk]);
      this.serve();
    });
    socket.on("drain", () => {
      this.blocked = false;
      this.serve();
    });
    socket.on("end", () => {
      this.ended = true;
      this.serve();
    });
  }

  send(message: object): void {
    if (!this.socket.write(`${JSON.stringify(message)}\n`)) this.blocked = true;
  }

  end(): void {
    this.hooks.gone();
    this.socket.destroy();
  }

  /** A client is let go on for a while, so that it comes to read why it was refused. */
  private ignore(length: number): void {
    this.unread = Buffer.alloc(0);
    this.ignored += length;
    if (this.ignored > IGNORED_LIMIT) this.socket.destroy();
  }

  private serve(): void {
    while (!this.blocked && !this.refused && this.unread.length > 0) {
      const at = this.unread.indexOf(NEWLINE);
      const length = at < 0 ? this.unread.length : at;
      if (length > LINE_LIMIT) {
        this.refused = true;
        this.send(tooLong());
        this.socket.end();
        this.ignore(this.unread.length);
        return;
      }
      // The last line may lack its newline.
      if (at < 0 && !this.ended) break;
      const line = this.unread.subarray(0, length);
      this.unread = this.unread.subarray(length + 1);
      if (line.length > 0) this.send(this.hooks.answer(line));
    }
    if (this.refused) return;
    if (this.blocked) this.socket.pause();
    else if (this.ended) this.socket.end();
    else this.socket.resume();
  }
}

/** Removes what processes that were killed have left in a folder, as long as that is open. Does not reject. */
export async function sweep(folder: ControlFolder, isOpen: () => boolean): Promise<void> {
  let names: string[];
  try {
    names = readdirSync(pathIn(folder, ""));
  } catch {
    return;
  }
  for (const name of names) {
    const parsed = parseSocketName(name);
    if (!isOpen()) return;
    if (parsed === undefined || processStartTime(parsed.pid) === parsed.startTime) continue;
    // It may be a process of another pid namespace, that lives.
    if (!(await refuses(pathIn(folder, name))) || !isOpen()) continue;
    try {
      unlinkSync(pathIn(folder, name));
    } catch {
      // Another process was sooner.
    }
  }
}

function refuses(path: string): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect({ path });
    socket.unref();
    socket.on("error", (error: NodeJS.ErrnoException) => done(error.code === "ECONNREFUSED"));
    socket.on("connect", () => {
      socket.destroy();
      done(false);
    });
  });
}
