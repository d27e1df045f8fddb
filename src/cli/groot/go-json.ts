// JSON as Go's encoding/json writes it: what decodes GrootFS's output may compare bytes.

/** The text of `value`, whose keys stay in their order, with `<`, `>`, `&` and the line separators escaped. */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, escapeCharacter);
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
