// Runs one case of a golden set through the production code; throws std::runtime_error where it
// differs. Positions are compared exactly, scores within a hundred-thousandth of the largest.
#ifndef KVASIR_TESTS_POLICIES_SELECT_GOLDEN_H_
#define KVASIR_TESTS_POLICIES_SELECT_GOLDEN_H_

#include "tests/policies/golden_set.h"

namespace kvasir::testing {

void RunGemFilter(const GoldenCase& test);
void RunSnapKv(const GoldenCase& test);
void RunH2o(const GoldenCase& test);
void RunKnorm(const GoldenCase& test);
void RunKeyDiff(const GoldenCase& test);
void RunTova(const GoldenCase& test);

void RunStreaming(const GoldenCase& test);
void RunInfLlm(const GoldenCase& test);
void RunRerotate(const GoldenCase& test);

}  // namespace kvasir::testing

#endif  // KVASIR_TESTS_POLICIES_SELECT_GOLDEN_H_
