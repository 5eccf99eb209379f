// The state of a sequence, as llama.cpp writes it: what fits to the byte is read, all else refused.
#include "client/llama_cpp/state_layout.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace kvasir::llama_cpp {
namespace {

struct Form {
  bool transposed, rotations, values;
  uint32_t streams;
};

StateLayout Example(const Form& form) {
  StateLayout layout;
  layout.v_transposed = form.transposed;
  layout.has_rotations = form.rotations;
  layout.k_rotation = form.rotations ? 64 : 0;
  layout.streams = form.streams;
  for (const uint32_t elements : {64U, 32U}) {
    StateLayer layer;
    layer.k_type = 1;
    layer.k_row_bytes = elements * 2;
    if (form.values) {
      layer.v_type = 1;
      layer.v_row_bytes = elements * 2;
      layer.v_elements = form.transposed ? elements : 0;
      layer.v_element_bytes = form.transposed ? 2 : 0;
    }
    layout.layers.push_back(layer);
  }
  return layout.With({0, 1, 2, 7, 9});
}

std::vector<std::byte> Written(const StateLayout& layout) {
  std::vector<std::byte> state(layout.bytes, std::byte{0x5a});
  layout.WriteTo(state);
  return state;
}

class StateLayoutTest : public ::testing::TestWithParam<Form> {};
INSTANTIATE_TEST_SUITE_P(All, StateLayoutTest,
                         ::testing::Values(Form{false, true, true, 1}, Form{true, true, true, 1},
                                           Form{false, false, true, 3}, Form{true, false, true, 1},
                                           Form{false, true, false, 1}));

TEST_P(StateLayoutTest, WhatIsWrittenIsRead) {
  const StateLayout layout = Example(GetParam());
  const std::optional<StateLayout> read = ParseState(Written(layout));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->Text(), layout.Text());
  EXPECT_EQ(read->positions, layout.positions);
  EXPECT_EQ(read->bytes, layout.bytes);
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    EXPECT_EQ(read->layers[i].k_at, layout.layers[i].k_at);
    EXPECT_EQ(read->layers[i].v_at, layout.layers[i].v_at);
  }
}

TEST_P(StateLayoutTest, AByteMoreOrLessIsAnotherFormat) {
  std::vector<std::byte> state = Written(Example(GetParam()));
  for (size_t bytes = 0; bytes < state.size(); ++bytes) {
    const std::optional<StateLayout> read = ParseState(std::span(state).first(bytes));
    // What ends where V begins is the state of a model that has none.
    if (!read) continue;
    EXPECT_EQ(read->layers.back().k_at + 5 * read->layers.back().k_row_bytes, bytes);
    EXPECT_EQ(read->layers.back().v_row_bytes, 0U);
  }
  state.push_back(std::byte{0});
  EXPECT_FALSE(ParseState(state).has_value());
}

TEST_P(StateLayoutTest, NoWordOfItIsBelieved) {
  const std::vector<std::byte> state = Written(Example(GetParam()));
  for (size_t at = 0; at + 4 <= state.size(); at += 4) {
    for (const uint32_t word : {0U, 0xffffffffU, 0x7fffffffU, 0x10000U}) {
      std::vector<std::byte> changed = state;
      std::memcpy(changed.data() + at, &word, sizeof(word));
      const std::optional<StateLayout> read = ParseState(changed);
      if (!read) continue;
      EXPECT_LE(read->positions.size(), 5U);
      for (const StateLayer& layer : read->layers) {
        EXPECT_LE(layer.k_at + layer.k_row_bytes * read->positions.size(), state.size());
        EXPECT_LE(layer.v_at + layer.v_row_bytes * read->positions.size(), state.size());
      }
    }
  }
}

TEST(StateLayoutText, LayoutsThatDifferSaySo) {
  const StateLayout rows = Example({false, true, true, 1});
  EXPECT_NE(rows.Text(), Example({true, true, true, 1}).Text());
  StateLayout other = rows;
  other.layers[1].v_type = 8;
  EXPECT_NE(rows.Text(), other.Text());
  other = rows;
  other.k_rotation = 0;
  EXPECT_NE(rows.Text(), other.Text());
}

}  // namespace
}  // namespace kvasir::llama_cpp
