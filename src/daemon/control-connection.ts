// One connection to a control socket, from the side of who asks. What comes from there is somebody else's: it may stall,
// end, or be nonsense, and is bounded.
import { connect, type Socket } from "node:net";
import { codeOf } from "../base/errno.js";
import { type Hello, type Reply, VERSION } from "./control-protocol.js";

/** How long an answer is waited for, in milliseconds. */
const ANSWER_PATIENCE = 5_000;
/** An answer is never longer. */
const ANSWER_LIMIT = 1 << 20;

/** What was asked for was refused, or could not be asked. The message does not name the mount. */
export class ControlRefused extends Error {
  /** Of the protocol, where it was the mount that refused. */
  readonly code: string | undefined;

  constructor(message: string, code?: string) {
    super(message);
    this.code = code;
  }
}

/** A connection to the process of a mount. */
export class ControlConnection {
  readonly hello: Hello["hello"];
  private readonly socket: Socket;
  private readonly lines: LineReader;

  private constructor(socket: Socket, lines: LineReader, hello: Hello["hello"]) {
    this.socket = socket;
    this.lines = lines;
    this.hello = hello;
  }

  /** Undefined where nobody listens. Rejects with ControlRefused. */
  static async open(path: string): Promise<ControlConnection | undefined> {
    const socket = await connected(path);
    if (socket === undefined) return undefined;
    const lines = new LineReader(socket);
    try {
      const line = (await lines.next()) as Hello | undefined;
      if (line === undefined) {
        socket.destroy();
        return undefined;
      }
      if (line.version !== VERSION || typeof line.hello !== "object") {
        throw new ControlRefused(
          `its process speaks version ${String(line.version)} of the protocol, this is ${VERSION}`,
        );
      }
      return new ControlConnection(socket, lines, line.hello);
    } catch (cause) {
      socket.destroy();
      throw cause;
    }
  }

  /** The result of a command; undefined when the mount has ended meanwhile. Rejects with ControlRefused. */
  async ask<T>(command: string, more: object = {}): Promise<T | undefined> {
    this.socket.write(`${JSON.stringify({ version: VERSION, command, ...more })}\n`);
    const reply = (await this.lines.next()) as Reply<T> | undefined;
    if (reply?.error !== undefined) throw new ControlRefused(reply.error.message, reply.error.code);
    return reply?.result;
  }

  close(): void {
    this.socket.destroy();
  }
}

function connected(path: string): Promise<Socket | undefined> {
  return new Promise((done, fail) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      socket.on("error", () => {});
      done(socket);
    });
    socket.once("error", (error) => {
      const code = codeOf(error);
      if (code === "ECONNREFUSED" || code === "ENOENT") done(undefined);
      else if (code === "EACCES" || code === "EPERM") fail(notAllowed());
      else fail(new ControlRefused(error.message));
    });
  });
}

export function notAllowed(): ControlRefused {
  return new ControlRefused("must be who mounted it, or root");
}

/** JSON objects from a socket, one a line, each within {@link ANSWER_PATIENCE}. */
class LineReader {
  private readonly chunks: AsyncIterator<string>;
  private unread = "";

  constructor(socket: Socket) {
    socket.setEncoding("utf8");
    this.chunks = socket[Symbol.asyncIterator]();
  }

  /** Undefined at the end. */
  async next(): Promise<unknown> {
    for (;;) {
      const at = this.unread.indexOf("\n");
      if (at >= 0) {
        const line = this.unread.slice(0, at);
        this.unread = this.unread.slice(at + 1);
        try {
          return JSON.parse(line);
        } catch {
          throw new ControlRefused("its process gives an answer that makes no sense");
        }
      }
      if (this.unread.length > ANSWER_LIMIT) {
        throw new ControlRefused("its process gives an answer without end");
      }
      const chunk = await this.chunk();
      if (chunk === undefined) return undefined;
      this.unread += chunk;
    }
  }

  private async chunk(): Promise<string | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<never>((_, fail) => {
      timer = setTimeout(() => fail(new ControlRefused("its process does not answer")), ANSWER_PATIENCE);
    });
    try {
      const { done, value } = await Promise.race([this.chunks.next(), patience]);
      return done === true ? undefined : value;
    } catch (cause) {
      if (cause instanceof ControlRefused) throw cause;
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }
}
