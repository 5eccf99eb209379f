// Whether a stream that goes on from a prefix sees what one sees that has computed it all.
#ifndef KVASIR_TESTS_CORE_PREFIX_TWINS_H_
#define KVASIR_TESTS_CORE_PREFIX_TWINS_H_

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/core/prefix_fixture.h"

namespace kvasir::core::testing {

// Both write the same `more` rows. Adds a test failure where they see other rows, positions or
// bytes.
template <typename Fixture>
void ExpectTwins(Fixture& fixture, FakeEngine& engine, uint32_t model, const std::string& retention,
                 const std::vector<uint32_t>& tokens, FakeEngine::Stream& stream, uint64_t more,
                 std::mt19937_64& random) {
  absl::StatusOr<FakeEngine::Stream> reference = engine.Open(model, retention);
  ASSERT_TRUE(reference.ok()) << MessageOf(reference.status());
  fixture.WriteTokens(engine, *reference,
                      {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(stream.rows)});
  // Of kept rows it is known only when their copy is made whether they fill a record.
  const bool late = std::string_view(retention).find("local_size=9+") == std::string_view::npos;
  for (uint64_t row = stream.rows, end = row + more; row < end; ++row) {
    const uint32_t id = row < tokens.size() ? tokens[row] : static_cast<uint32_t>(random() % 8);
    fixture.Step(engine, *reference, id);
    fixture.Step(engine, stream, id, !late || random() % 3 != 0);
    ASSERT_FALSE(::testing::Test::HasFatalFailure());
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      ASSERT_TRUE(engine.Seen(stream, row, layer) == engine.Seen(*reference, row, layer))
          << "row " << row << " layer " << layer;
    }
  }
  fixture.RunJobs();  // none is out
  fixture.Close(engine, *reference);
}

}  // namespace kvasir::core::testing

#endif  // KVASIR_TESTS_CORE_PREFIX_TWINS_H_
