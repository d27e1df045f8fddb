// The closing line of .ci/run: counts from vitest's JSON report, and the exit code they and the
// failed steps named after it deserve. A report that is missing counts as a failure, never as none.
import { existsSync, readFileSync } from "node:fs";

const [report, ...failedSteps] = process.argv.slice(2);

if (!existsSync(report)) {
  console.log("tests: no report was written; 0 passed, 1 failed");
  process.exitCode = 1;
} else {
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
    readFileSync(report, "utf8"),
  );
  // A file that fails outside its tests (an import, a hook) has no failed test to count.
  const brokenFiles = testResults.filter(
    ({ status, assertionResults }) =>
      status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  ).length;
  // A step other than the tests that failed is a failure too, though no test says so.
  const otherSteps = failedSteps.filter((step) => step !== "test").length;
  const silent = failedSteps.includes("test") && numFailedTests + brokenFiles === 0 ? 1 : 0;
  const failed = numFailedTests + brokenFiles + otherSteps + silent;
  console.log(`tests: ${numPassedTests} passed, ${failed} failed, ${numPendingTests} skipped`);
  if (failed > 0) process.exitCode = 1;
}
