// What must not compile is checked where it can be: in constant expressions.
#include "protocol/faces.hpp"

#include <gtest/gtest.h>

namespace troupe {
namespace {

static_assert(accepts<Generate, ActorFace>);
static_assert(!accepts<Generate, LearnerFace>);
static_assert(!accepts<Update, ReferenceFace>);
static_assert(accepts<Status, RewardFace> && accepts<Stop, ConductorFace>);

struct Complete {
  int a = 0;
  int b = 0;
  static constexpr std::tuple kFields{Field{"a", &Complete::a}, Field{"b", &Complete::b}};
};
struct Forgetful {
  int a = 0;
  int b = 0;
  static constexpr std::tuple kFields{Field{"a", &Forgetful::a}};
};
static_assert(field_count<Complete> == detail::member_count<Complete>());
static_assert(field_count<Forgetful> != detail::member_count<Forgetful>());

TEST(Faces, AreCheckedWhenCompiled) {
  SUCCEED();
}

}  // namespace
}  // namespace troupe
